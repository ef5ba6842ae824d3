"""From hidden states of a packed batch to one vector a text: pure functions on [T, hidden] and `cu_seqlens`.

Both are MLX arrays, or both numpy arrays; so is what comes back. A mode leaves out each text's first `skip` tokens, a
prompt's, but a text that has no others keeps them.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from custom_kernels import cpu, mean_pool
from custom_kernels.packed import counting, lengths, pad

# mlx.core.array or numpy.ndarray; all of one call's are of one kind.
Array: TypeAlias = Any


def mean(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0) -> Array:
    """The average of each text's tokens, in float32: [T, hidden] -> [n, hidden]."""
    way: Any = cpu.mean_pool if isinstance(hidden, np.ndarray) else mean_pool
    return way(hidden, cu_seqlens, skip)


def mean_sqrt_len(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0) -> Array:
    """The sum of each text's tokens over the square root of their number: [T, hidden] -> [n, hidden]."""
    total, count = _sum(hidden, cu_seqlens, max_seqlen, skip)
    return total / namespace(hidden).sqrt(count)


def weighted_mean(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0) -> Array:
    """The average of each text's tokens, weighted by their places from 1 up: [T, hidden] -> [n, hidden].

    The places are those in the whole text, prompt included.
    """
    block, keep = _kept(hidden, cu_seqlens, max_seqlen, skip)
    xp = namespace(hidden)
    weights = xp.where(keep, _places(hidden, max_seqlen) + 1, 0).astype(hidden.dtype)
    total = (xp.where(keep[:, :, None], block, 0) * weights[:, :, None]).sum(axis=1)
    return total / xp.maximum(weights.sum(axis=1, keepdims=True), 1)


def maximum(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0) -> Array:
    """The largest value of each dimension among a text's tokens: [T, hidden] -> [n, hidden]."""
    block, keep = _kept(hidden, cu_seqlens, max_seqlen, skip)
    return namespace(hidden).where(keep[:, :, None], block, -np.inf).max(axis=1)


def cls(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0) -> Array:
    """Each text's first token: [T, hidden] -> [n, hidden]."""
    first = cu_seqlens[:-1] + _skipped(hidden, cu_seqlens, skip)
    return hidden[namespace(hidden).minimum(first, hidden.shape[0] - 1)]


def last(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0) -> Array:
    """Each text's last token: [T, hidden] -> [n, hidden]."""
    return hidden[namespace(hidden).maximum(cu_seqlens[1:] - 1, 0)]


# By sentence-transformers' names, in the order in which its flags of old concatenate them.
POOLING: dict[str, Callable[[Array, Array, int, int], Array]] = {
    "cls": cls,
    "max": maximum,
    "mean": mean,
    "mean_sqrt_len_tokens": mean_sqrt_len,
    "weightedmean": weighted_mean,
    "lasttoken": last,
}
# These lay the texts out as a block, as wide as the longest of a batch.
PADDED = frozenset({"max", "mean_sqrt_len_tokens", "weightedmean"})


def normalize(vectors: Array) -> Array:
    """Scale each row of [n, dim] to length 1; a zero row stays zero."""
    if isinstance(vectors, np.ndarray):
        return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    # x / sqrt(mean(x^2) + eps) is one fused op, where norm, maximum and quotient are three launches.
    dim = vectors.shape[-1]
    return mx.fast.rms_norm(vectors, _filled(dim, dim**-0.5, vectors.dtype), 1e-24 / dim)


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
    means[chunks > 1] = (normalize(total) if unit else total)[chunks > 1]
    return means


@cache
def _filled(n: int, value: float, dtype: mx.Dtype) -> mx.array:
    """[n] of one value: a constant of compiled graphs, which costs them no launch."""
    return mx.array(np.full(n, value, dtype=np.float32)).astype(dtype)


def namespace(array: Array) -> Any:
    """numpy or mlx.core, whichever the array is of: they name their functions alike."""
    return np if isinstance(array, np.ndarray) else mx


def _sum(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int) -> tuple[Array, Array]:
    """The sum of each text's tokens [n, hidden], and their number [n, 1], at least 1."""
    block, keep = _kept(hidden, cu_seqlens, max_seqlen, skip)
    xp = namespace(hidden)
    count = xp.maximum(keep.astype(hidden.dtype).sum(axis=1, keepdims=True), 1)
    return xp.where(keep[:, :, None], block, 0).sum(axis=1), count


def _kept(hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int) -> tuple[Array, Array]:
    """The texts as rows of a block [n, max_seqlen, hidden], and which of its places to pool, [n, max_seqlen]."""
    place = _places(hidden, max_seqlen)
    if isinstance(hidden, np.ndarray):
        block = hidden[np.minimum(cu_seqlens[:-1, None] + place, len(hidden) - 1)]
    else:
        block, _ = pad(hidden, cu_seqlens, max_seqlen)
    first = _skipped(hidden, cu_seqlens, skip)[:, None]
    return block, (place >= first) & (place < lengths(cu_seqlens)[:, None])


def _places(hidden: Array, max_seqlen: int) -> Array:
    return np.arange(max_seqlen, dtype=np.int32) if isinstance(hidden, np.ndarray) else counting(max_seqlen)


def _skipped(hidden: Array, cu_seqlens: Array, skip: int) -> Array:
    """The tokens left out of each text: int [n]."""
    return namespace(hidden).where(lengths(cu_seqlens) > skip, skip, 0)
