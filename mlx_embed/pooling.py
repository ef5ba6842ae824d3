"""From hidden states of a packed batch to one vector a text: pure functions on [T, hidden] and `cu_seqlens`."""

from collections.abc import Callable

import mlx.core as mx

from custom_kernels.packed import counting, lengths, pad


def mean(hidden: mx.array, cu_seqlens: mx.array, max_seqlen: int, skip: int = 0) -> mx.array:
    """The average of each text's tokens but its first `skip`: [T, hidden] -> [n, hidden]."""
    block, keep = _kept(hidden, cu_seqlens, max_seqlen, skip)
    count = mx.maximum(keep.sum(axis=1, keepdims=True), 1)
    return mx.where(keep[:, :, None], block, 0).sum(axis=1) / count


def maximum(hidden: mx.array, cu_seqlens: mx.array, max_seqlen: int, skip: int = 0) -> mx.array:
    """The largest value of each dimension among the same tokens: [T, hidden] -> [n, hidden]."""
    block, keep = _kept(hidden, cu_seqlens, max_seqlen, skip)
    return mx.where(keep[:, :, None], block, -mx.inf).max(axis=1)


def cls(hidden: mx.array, cu_seqlens: mx.array, max_seqlen: int, skip: int = 0) -> mx.array:
    """Each text's first token, a prompt's or not: [T, hidden] -> [n, hidden]."""
    return hidden[mx.minimum(cu_seqlens[:-1], hidden.shape[0] - 1)]


def last(hidden: mx.array, cu_seqlens: mx.array, max_seqlen: int, skip: int = 0) -> mx.array:
    """Each text's last token: [T, hidden] -> [n, hidden]."""
    return hidden[mx.maximum(cu_seqlens[1:] - 1, 0)]


POOLING: dict[str, Callable[[mx.array, mx.array, int, int], mx.array]] = {
    "mean": mean,
    "cls": cls,
    "max": maximum,
    "last": last,
}


def normalize(vectors: mx.array) -> mx.array:
    """Scale each row of [n, dim] to length 1; a zero row stays zero."""
    return vectors / mx.maximum(mx.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


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
