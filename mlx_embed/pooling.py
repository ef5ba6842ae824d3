"""From hidden states of a packed batch to one vector a text: pure functions on [T, hidden] and `cu_seqlens`.

Both are MLX arrays, or both numpy arrays; so is what comes back. A mode leaves out each text's first `skip` tokens, a
prompt's, but a text that has no others keeps them.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mlx_embed.architectures import ops
from mlx_embed.architectures.ops import Array


def mean(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0) -> Array:
    """The average of each text's tokens, in float32: [T, hidden] -> [n, hidden]."""
    return ops.mean_pool(hidden, cu_seqlens, skip)


def mean_sqrt_len(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0) -> Array:
    """The sum of each text's tokens over the square root of their number: [T, hidden] -> [n, hidden]."""
    total, count = _sum(hidden, cu_seqlens, max_seqlen, skip)
    return total / ops.namespace(hidden).sqrt(count)


def weighted_mean(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0) -> Array:
    """The average of each text's tokens, weighted by their places from 1 up: [T, hidden] -> [n, hidden].

    The places are those in the whole text, prompt included.
    """
    block, keep = _kept(hidden, cu_seqlens, max_seqlen, skip)
    xp = ops.namespace(hidden)
    weights = xp.where(keep, ops.places(cu_seqlens, max_seqlen) + 1, 0).astype(hidden.dtype)
    total = (xp.where(keep[:, :, None], block, 0) * weights[:, :, None]).sum(axis=1)
    return total / xp.maximum(weights.sum(axis=1, keepdims=True), 1)


def maximum(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0) -> Array:
    """The largest value of each dimension among a text's tokens: [T, hidden] -> [n, hidden]."""
    block, keep = _kept(hidden, cu_seqlens, max_seqlen, skip)
    return ops.namespace(hidden).where(keep[:, :, None], block, -np.inf).max(axis=1)


def cls(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0) -> Array:
    """Each text's first token: [T, hidden] -> [n, hidden]."""
    return hidden[first_rows(cu_seqlens, hidden.shape[0], skip)]


def last(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0) -> Array:
    """Each text's last token: [T, hidden] -> [n, hidden]."""
    return hidden[last_rows(cu_seqlens, hidden.shape[0])]


def first_rows(cu_seqlens: Array, total: int, skip: int = 0) -> Array:
    """Where each text's first token is among `total`: [n]; that of a text without any is another's."""
    first = cu_seqlens[:-1] + _skipped(cu_seqlens, skip) if skip else cu_seqlens[:-1]
    return ops.namespace(cu_seqlens).minimum(first, total - 1)


def last_rows(cu_seqlens: Array, total: int, skip: int = 0) -> Array:
    """Where each text's last token is among `total`: [n]; that of a text without any is another's."""
    return ops.namespace(cu_seqlens).maximum(cu_seqlens[1:] - 1, 0)


# By sentence-transformers' names, in the order in which its flags of old concatenate them.
POOLING: dict[str, Callable[[Array, Array, int, int], Array]] = {
    "cls": cls,
    "max": maximum,
    "mean": mean,
    "mean_sqrt_len_tokens": mean_sqrt_len,
    "weightedmean": weighted_mean,
    "lasttoken": last,
}
# The modes that take a token of each text, and which.
ROWS: dict[str, Callable[..., Array]] = {"cls": first_rows, "lasttoken": last_rows}
# These lay the texts out as a block, as wide as the longest of a batch.
PADDED = frozenset({"max", "mean_sqrt_len_tokens", "weightedmean"})


def mean_of_chunks(
    vectors: npt.NDArray[np.float32], weights: npt.NDArray[np.float32], chunks: npt.NDArray[np.int32], unit: bool
) -> npt.NDArray[np.float32]:
    """The weighted mean of each text's chunks, which lie one after the other: [rows, dim] -> [n, dim].

    Args:
        vectors: one row a chunk.
        weights: [rows].
        chunks: [n], the chunks of each text, at least 1. A text of one chunk keeps its vector.
        unit: scale the means to length 1.
    """
    if len(vectors) == len(chunks):
        return vectors
    first = np.cumsum(chunks) - chunks
    means = vectors[first]
    total = np.add.reduceat(vectors * weights[:, None], first) / np.maximum(np.add.reduceat(weights, first), 1)[:, None]
    means[chunks > 1] = (ops.normalize(total) if unit else total)[chunks > 1]
    return means


def _sum(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int) -> tuple[Array, Array]:
    """The sum of each text's tokens [n, hidden], and their number [n, 1], at least 1."""
    block, keep = _kept(hidden, cu_seqlens, max_seqlen, skip)
    xp = ops.namespace(hidden)
    count = xp.maximum(keep.astype(hidden.dtype).sum(axis=1, keepdims=True), 1)
    return xp.where(keep[:, :, None], block, 0).sum(axis=1), count


def _kept(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int) -> tuple[Array, Array]:
    """The texts as rows of a block [n, max_seqlen, hidden], and which of its places to pool, [n, max_seqlen]."""
    place = ops.places(cu_seqlens, max_seqlen)
    first = _skipped(cu_seqlens, skip)[:, None]
    keep = (place >= first) & (place < _lengths(cu_seqlens)[:, None])
    return ops.block(hidden, cu_seqlens, max_seqlen), keep


def _skipped(cu_seqlens: Array, skip: int) -> Array:
    """The tokens left out of each text: int [n], of the dtype of `cu_seqlens`."""
    return ops.namespace(cu_seqlens).where(_lengths(cu_seqlens) > skip, skip, 0).astype(cu_seqlens.dtype)


def _lengths(cu_seqlens: Array) -> Array:
    """The tokens of each text: int [n]."""
    return cu_seqlens[1:] - cu_seqlens[:-1]
