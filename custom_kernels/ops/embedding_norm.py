"""The embedding layer in one pass: rows looked up in a few tables, summed, and normalised.

The sum, the statistics and the affine step are in float32, and rounded once, to the tables' dtype. Where no kernel runs
MLX's own ops round the sum as well.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from custom_kernels import cuda, metal
from custom_kernels.arrays import FLOATS, MAX_WIDTH, random, spelled
from custom_kernels.choice.op import Arguments, Load, Op, typical_encoders
from custom_kernels.ops.layer_norm import fast_layer_norm, reference_layer_norm


def embedding_norm(
    lookups: Sequence[tuple[mx.array, mx.array]],
    weight: mx.array | None,
    bias: mx.array | None,
    eps: float,
    *,
    backend: str | None = None,
) -> mx.array:
    """LayerNorm of the sum of rows looked up in tables.

    Args:
        lookups: 1 to 3 pairs of a table [V, H] and ids int32 [T] into it; the tables are of one dtype. Ids outside a
            table are the caller's to refuse.
        weight: [H], or None for the sum alone.
        bias: [H], or None for no offset; there is none without a weight.
        eps: added to the variance.
        backend: as in `layer_norm`, "fast" aside.

    Returns:
        [T, H] of the tables' dtype.

    Raises:
        ValueError: shapes that do not fit, or an unknown back end.
        TypeError: a dtype that is not float32, float16 or bfloat16.
        RuntimeError: a named back end that this machine does not have.
    """
    if not 1 <= len(lookups) <= 3:
        raise ValueError(f"embedding_norm takes 1 to 3 lookups, got {len(lookups)}.")
    _check(lookups, weight, bias)
    table, ids = lookups[0]
    if not ids.size or table.shape[1] > MAX_WIDTH:
        return reference_embedding_norm(lookups, weight, bias, eps)
    kinds = (None if a is None else a.dtype for a in (weight, bias))
    variant = Variant(table.shape[1], len(lookups), eps, table.dtype, *kinds)
    return EMBEDDING_NORM.pick(backend, variant, Load.of(ids.size))(lookups, weight, bias, eps)


class Variant(NamedTuple):
    """What a kernel is compiled for."""

    width: int
    tables: int
    eps: float
    dtype: mx.Dtype
    weight: mx.Dtype | None
    bias: mx.Dtype | None

    def __str__(self) -> str:
        return f"{spelled(self.dtype)}, {self.width} wide, {self.tables} tables"


def reference_embedding_norm(
    lookups: Sequence[tuple[mx.array, mx.array]], weight: mx.array | None, bias: mx.array | None, eps: float
) -> mx.array:
    """The same from composed MLX ops."""
    dtype = lookups[0][0].dtype
    x = sum(
        (table[ids].astype(mx.float32) for table, ids in lookups[1:]), lookups[0][0][lookups[0][1]].astype(mx.float32)
    )
    if weight is not None:
        x = reference_layer_norm(x, weight, bias, eps)
    return x.astype(dtype)


def builtin_embedding_norm(
    lookups: Sequence[tuple[mx.array, mx.array]], weight: mx.array | None, bias: mx.array | None, eps: float
) -> mx.array:
    """The same by MLX's own LayerNorm, in the tables' dtype."""
    x = lookups[0][0][lookups[0][1]]
    for table, ids in lookups[1:]:
        x = x + table[ids]
    return x if weight is None else fast_layer_norm(x, weight, bias, eps)


def _check(lookups: Sequence[tuple[mx.array, mx.array]], weight: mx.array | None, bias: mx.array | None) -> None:
    table, ids = lookups[0]
    if table.ndim != 2 or ids.ndim != 1 or table.shape[1] == 0:
        raise ValueError(f"embedding_norm looks ids [T] up in tables [V, H], got {ids.shape} and {table.shape}.")
    if table.dtype not in FLOATS:
        raise TypeError(f"embedding_norm takes float32, float16 or bfloat16 tables, got {table.dtype}.")
    for other, places in lookups:
        if other.ndim != 2 or other.shape[1] != table.shape[1] or other.dtype != table.dtype:
            raise ValueError(
                f"embedding_norm needs tables alike, {table.dtype} [V, {table.shape[1]}], "
                f"got {other.dtype} {other.shape}."
            )
        if places.shape != ids.shape or places.dtype != mx.int32:
            raise ValueError(f"embedding_norm needs ids int32 {ids.shape}, got {places.dtype} {places.shape}.")
    if weight is None and bias is not None:
        raise ValueError("embedding_norm got a bias for its LayerNorm, but no weight.")
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None and (array.shape != (table.shape[1],) or array.dtype not in FLOATS):
            raise ValueError(
                f"embedding_norm needs {name} of shape ({table.shape[1]},), got {array.dtype} {array.shape}."
            )


def _sample(variant: Variant, load: Load | None) -> Arguments:
    width, count, eps, *kinds = variant
    rows, tokens = (7, 9) if load is None else (10_000, load.tokens)
    shapes = ((rows, width), (width,), (width,))
    table, weight, bias = (
        None if kind is None else random(*shape, dtype=kind, seed=seed)
        for seed, (kind, shape) in enumerate(zip(kinds, shapes, strict=True))
    )
    rng = np.random.default_rng(0)
    lookups = [(table, mx.array(rng.integers(0, rows, size=tokens).astype(np.int32))) for _ in range(count)]
    return (lookups, weight, bias, eps), {}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for width, _, dtype, load in typical_encoders():
        for tables in (3, 2):
            yield Variant(width, tables, 1e-12, dtype, dtype, dtype), load


EMBEDDING_NORM = Op(
    "embedding_norm",
    {"metal": metal.embedding_norm, "cuda": cuda.embedding_norm},
    reference_embedding_norm,
    lambda variant: {"built-in": builtin_embedding_norm},
    _sample,
    _typical,
)
