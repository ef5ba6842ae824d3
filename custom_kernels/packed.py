"""Index arithmetic of packed batches: texts laid end to end, `cu_seqlens` saying where each begins.

The contract everywhere: `cu_seqlens` is int32 [n + 1], starts at 0, never decreases, and ends at T, the number of
tokens; a sequence may be empty, and none is longer than `max_seqlen`.
"""

from functools import cache

import mlx.core as mx
import numpy as np


@cache
def counting(n: int) -> mx.array:
    """0 .. n - 1: int32 [n]. One array for each n, so that `mx.compile` sees what the layers have in common."""
    return mx.array(np.arange(n, dtype=np.int32))


@cache
def zeros(n: int) -> mx.array:
    """int32 [n]. One array for each n: a constant of compiled graphs, which costs them no launch."""
    return mx.array(np.zeros(n, dtype=np.int32))


def sequence_ids(cu_seqlens: mx.array, total: int) -> mx.array:
    """The sequence that each of the `total` tokens belongs to: int32 [T]."""
    starts = mx.zeros((total + 1,), dtype=mx.int32).at[cu_seqlens[1:]].add(1)
    return mx.cumsum(starts)[:total]


def places(cu_seqlens: mx.array, total: int) -> mx.array:
    """Each token's place in its own sequence, counted from 0: int32 [T]. `custom_kernels.position_ids` is faster."""
    return counting(total) - cu_seqlens[sequence_ids(cu_seqlens, total)]


def lengths(cu_seqlens: mx.array) -> mx.array:
    """Tokens in each sequence: int32 [n]."""
    return cu_seqlens[1:] - cu_seqlens[:-1]


def pad(x: mx.array, cu_seqlens: mx.array, max_seqlen: int) -> tuple[mx.array, mx.array | None]:
    """Lay packed rows [T, ...] out as a block [n, max_seqlen, ...], one sequence a row.

    Returns the block and `valid`, bool [n, max_seqlen], or None where every place is filled: then all sequences
    are `max_seqlen` long and the block is a plain reshape. Places that are not valid hold some token's values.
    """
    n, total = cu_seqlens.shape[0] - 1, x.shape[0]
    if n * max_seqlen == total:
        return x.reshape(n, max_seqlen, *x.shape[1:]), None
    offsets = counting(max_seqlen)
    rows = mx.minimum(cu_seqlens[:-1, None] + offsets, total - 1)
    return x[rows], offsets < lengths(cu_seqlens)[:, None]


def unpad(block: mx.array, cu_seqlens: mx.array, total: int) -> mx.array:
    """The inverse of `pad`: [n, max_seqlen, ...] back to packed rows [T, ...]."""
    n, max_seqlen = block.shape[:2]
    rows = block.reshape(n * max_seqlen, *block.shape[2:])
    if n * max_seqlen == total:
        return rows
    return rows[sequence_ids(cu_seqlens, total) * max_seqlen + places(cu_seqlens, total)]
