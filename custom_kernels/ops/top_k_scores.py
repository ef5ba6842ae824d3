"""The rows of a matrix that have the largest inner products with some queries: an exact search."""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from custom_kernels import cuda, metal
from custom_kernels.arrays import FLOATS, random, spelled
from custom_kernels.choice.op import ENCODERS, Arguments, Load, Op
from custom_kernels.ranking import best

# A row's number is given as a float32, which has every whole number up to this one.
MAX_ROWS = 2**24
# Scores that the reference holds at a time.
_AT_ONCE = 2**24


def top_k_scores(
    queries: mx.array,
    rows: mx.array,
    k: int,
    mask: mx.array | None = None,
    scales: mx.array | None = None,
    *,
    backend: str | None = None,
) -> mx.array:
    """The k rows with the largest inner products with each query, best first, and of equal ones the first row first.

    Args:
        queries: float32 [n, D].
        rows: [M, D], of float32, float16, bfloat16 or int8.
        k: how many; at least 1.
        mask: uint8 [ceil(M / 8)], a bit a row, the least significant first: 0 leaves a row out. None: all count.
        scales: float32 [M], by which the products of each row are multiplied.
        backend: as in `layer_norm`, "fast" aside.

    Returns:
        float32 [n, 2, k]: the scores, and the numbers of the rows; -infinity and -1 where fewer rows count.

    Raises:
        ValueError: shapes that do not fit, a k below 1, more than 2**24 rows, or an unknown back end.
        TypeError: another dtype.
        RuntimeError: a named back end that this machine does not have, or that has no such kernel.
    """
    if queries.ndim != 2 or rows.ndim != 2 or queries.shape[1] != rows.shape[1] or rows.shape[0] > MAX_ROWS or k < 1:
        raise ValueError(
            "top_k_scores needs queries [n, D], at most 2**24 rows [M, D] and a k from 1 up, got "
            f"{queries.shape}, {rows.shape} and {k}."
        )
    if queries.dtype != mx.float32 or rows.dtype not in (*FLOATS, mx.int8):
        raise TypeError(
            "top_k_scores takes float32 queries and rows of float32, float16, bfloat16 or int8, got "
            f"{spelled(queries.dtype)} and {spelled(rows.dtype)}."
        )
    count = rows.shape[0]
    if mask is not None and (mask.dtype != mx.uint8 or mask.shape != (-(-count // 8),)):
        raise ValueError(f"top_k_scores needs a mask of uint8 [{-(-count // 8)}], got {mask.dtype} {mask.shape}.")
    if scales is not None and (scales.dtype != mx.float32 or scales.shape != (count,)):
        raise ValueError(f"top_k_scores needs scales of float32 [{count}], got {scales.dtype} {scales.shape}.")
    if not queries.size or not count:
        return reference_top_k_scores(queries, rows, k, mask, scales)
    variant = Variant(queries.shape[1], rows.dtype, k, mask is not None, scales is not None)
    return TOP_K_SCORES.pick(backend, variant, Load.of(count))(queries, rows, k, mask, scales)


class Variant(NamedTuple):
    """What a kernel is compiled for, and may be wrong for."""

    width: int
    dtype: mx.Dtype
    k: int
    masked: bool
    scaled: bool

    def __str__(self) -> str:
        return f"{spelled(self.dtype)}, {self.width} wide, the best {self.k}"


def reference_top_k_scores(
    queries: mx.array, rows: mx.array, k: int, mask: mx.array | None = None, scales: mx.array | None = None
) -> mx.array:
    """The same from composed MLX ops."""
    n, count = queries.shape[0], rows.shape[0]
    if not n or not count:
        return mx.concatenate([mx.full((n, 1, k), -mx.inf), mx.full((n, 1, k), -1.0)], axis=1)
    places = mx.arange(count)
    if mask is not None:
        places = mx.where((mask[places // 8] >> (places % 8).astype(mx.uint8)) & 1, places, -1)
    floats = rows.astype(mx.float32).T
    step = max(1, _AT_ONCE // count)
    found = []
    for start in range(0, n, step):
        scores = queries[start : start + step] @ floats
        found.append(best(scores if scales is None else scores * scales, places, k))
    return mx.concatenate(found)


def _sample(variant: Variant, load: Load | None) -> Arguments:
    width, dtype, k, masked, scaled = variant
    n, count = (3, 3 * k + 37) if load is None else (1, load.tokens)
    # Eighths, whose products add up exactly in any order: else equal rows might have scores that differ in a bit.
    rows, queries = (
        mx.round(8 * random(n, width, dtype=mx.float32, seed=seed)) / 8 for n, seed in ((count, 0), (n, 2))
    )
    if load is None:
        rows = mx.concatenate([rows[:-2], rows[:2]])  # equal rows, of which the first is to come first
    rows = mx.round(rows * 30).astype(dtype) if dtype == mx.int8 else rows.astype(dtype)
    generator = np.random.default_rng(1)
    mask = mx.array(generator.integers(0, 256, -(-count // 8), dtype=np.uint8)) if masked else None
    scales = mx.array(generator.random(count, dtype=np.float32) + 0.5) if scaled else None
    return (queries, rows, k, mask, scales), {}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for width, _ in ENCODERS:
        for rows in (128, 4096):
            yield Variant(width, mx.float32, 16, True, False), Load(rows)
            yield Variant(width, mx.float16, 16, True, False), Load(rows)
            yield Variant(width, mx.int8, 128, True, True), Load(rows)


TOP_K_SCORES = Op(
    "top_k_scores",
    {"metal": metal.top_k_scores, "cuda": cuda.top_k_scores},
    reference_top_k_scores,
    lambda variant: {"reference": reference_top_k_scores},
    _sample,
    _typical,
)
