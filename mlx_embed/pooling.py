"""From hidden states of a packed batch to one vector a text: pure functions on [T, hidden] and `cu_seqlens`.

Both are MLX arrays, or both numpy arrays; so is what comes back.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import mlx.core as mx
import numpy as np

from custom_kernels import cpu
from custom_kernels.packed import counting, lengths, pad


def mean(hidden: Any, cu_seqlens: Any, max_seqlen: int, skip: int = 0) -> Any:
    """The average of each text's tokens but its first `skip`: [T, hidden] -> [n, hidden]."""
    if isinstance(hidden, np.ndarray):
        return cpu.mean_pool(hidden, cu_seqlens, skip)
    block, keep = _kept(hidden, cu_seqlens, max_seqlen, skip)
    count = mx.maximum(keep.sum(axis=1, keepdims=True), 1)
    return mx.where(keep[:, :, None], block, 0).sum(axis=1) / count


def maximum(hidden: Any, cu_seqlens: Any, max_seqlen: int, skip: int = 0) -> Any:
    """The largest value of each dimension among the same tokens: [T, hidden] -> [n, hidden]."""
    if isinstance(hidden, np.ndarray):
        texts = [hidden[begin:end] for begin, end in pairwise(cu_seqlens)]
        return np.stack([text[skip if len(text) > skip else 0 :].max(axis=0) for text in texts])
    block, keep = _kept(hidden, cu_seqlens, max_seqlen, skip)
    return mx.where(keep[:, :, None], block, -mx.inf).max(axis=1)


def cls(hidden: Any, cu_seqlens: Any, max_seqlen: int, skip: int = 0) -> Any:
    """Each text's first token, a prompt's or not: [T, hidden] -> [n, hidden]."""
    return hidden[_xp(hidden).minimum(cu_seqlens[:-1], hidden.shape[0] - 1)]


def last(hidden: Any, cu_seqlens: Any, max_seqlen: int, skip: int = 0) -> Any:
    """Each text's last token: [T, hidden] -> [n, hidden]."""
    return hidden[_xp(hidden).maximum(cu_seqlens[1:] - 1, 0)]


POOLING: dict[str, Callable[[Any, Any, int, int], Any]] = {
    "mean": mean,
    "cls": cls,
    "max": maximum,
    "last": last,
}


def normalize(vectors: Any) -> Any:
    """Scale each row of [n, dim] to length 1; a zero row stays zero."""
    xp = _xp(vectors)
    return vectors / xp.maximum(xp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _xp(array: Any) -> Any:
    return np if isinstance(array, np.ndarray) else mx


def _kept(hidden: mx.array, cu_seqlens: mx.array, max_seqlen: int, skip: int) -> tuple[mx.array, mx.array]:
    block, valid = pad(hidden, cu_seqlens, max_seqlen)
    place = counting(max_seqlen)
    keep = mx.broadcast_to(place >= skip, block.shape[:2])
    if valid is not None:
        keep = keep & valid
    # A text that is all prompt keeps its tokens rather than none.
    empty = lengths(cu_seqlens)[:, None] <= skip
    whole = (place < lengths(cu_seqlens)[:, None]) & empty
    return block, keep | whole
