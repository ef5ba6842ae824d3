"""Index arithmetic of packed batches: texts laid end to end, `cu_seqlens` saying where each begins.

The contract everywhere: `cu_seqlens` is int32 [n + 1], starts at 0, never decreases, and ends at T, the number of
tokens; a sequence may be empty, and none is longer than `max_seqlen`.
"""

from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np

from custom_kernels.backends import Load, Op


@cache
def counting(n: int) -> mx.array:
    """0 .. n - 1: int32 [n]. One array for each n, so that `mx.compile` sees what the layers have in common."""
    return mx.array(np.arange(n, dtype=np.int32))


@cache
def zeros(n: int) -> mx.array:
    """int32 [n]. One array for each n: a constant of compiled graphs, which costs them no launch."""
    return mx.array(np.zeros(n, dtype=np.int32))


def sequence_ids(cu_seqlens: Any, total: int) -> Any:
    """The sequence that each of the `total` tokens belongs to: int32 [T], of cu_seqlens' kind, MLX or numpy."""
    if isinstance(cu_seqlens, np.ndarray):
        return np.repeat(np.arange(len(cu_seqlens) - 1, dtype=np.int32), np.diff(cu_seqlens))
    starts = mx.zeros((total + 1,), dtype=mx.int32).at[cu_seqlens[1:]].add(1)
    return mx.cumsum(starts)[:total]


def position_ids(cu_seqlens: Any, total: int, *, backend: str | None = None) -> Any:
    """Each token's place in its own sequence, counted from 0: int32 [T], of cu_seqlens' kind, MLX or numpy.

    `backend` is as in `layer_norm`, "fast" aside.
    """
    if isinstance(cu_seqlens, np.ndarray):
        return np.arange(total, dtype=np.int32) - np.repeat(cu_seqlens[:-1], np.diff(cu_seqlens))
    if not total or cu_seqlens.size == 1:
        return reference_position_ids(cu_seqlens, total)
    return POSITION_IDS.pick(backend, "int32", Load.of(total))(cu_seqlens, total)


def reference_position_ids(cu_seqlens: mx.array, total: int) -> mx.array:
    """The same from composed MLX ops."""
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
    return rows[sequence_ids(cu_seqlens, total) * max_seqlen + reference_position_ids(cu_seqlens, total)]


def _sample(variant: str, load: Load | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    texts = [1, 0, 37, 300, 2] if load is None else [32] * (load.tokens // 32)
    return (mx.array(np.cumsum([0, *texts]).astype(np.int32)), sum(texts)), {}


POSITION_IDS = Op(
    "position_ids", reference_position_ids, lambda variant: {"reference": reference_position_ids}, _sample
)
