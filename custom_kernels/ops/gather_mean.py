"""Rows of a table of tokens, averaged for each text: all that a static model computes."""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from custom_kernels.arrays import FLOATS, random, spelled, starts, texts_of
from custom_kernels.choice.op import Arguments, Load, Op
from custom_kernels.packed import sequence_ids


def gather_mean(
    table: mx.array,
    input_ids: mx.array,
    cu_seqlens: mx.array,
    mapping: mx.array | None = None,
    weights: mx.array | None = None,
    *,
    backend: str | None = None,
) -> mx.array:
    """The average of the rows of each sequence's tokens, each times its token's weight.

    Args:
        table: [R, H], float32, float16, bfloat16 or int8.
        input_ids: int32 [T].
        cu_seqlens: int32 [n + 1], from 0 to T.
        mapping: int32 [V], the row of each token, below 0 of one that is passed over and not counted; None where they
            are the ids themselves.
        weights: [V], or None for 1 each.
        backend: as in `layer_norm`, "fast" aside.

    Returns:
        float32 [n, H]; zeros for a sequence without tokens.

    Raises:
        ValueError: shapes that do not fit, or an unknown back end.
        TypeError: an array of another dtype.
        RuntimeError: a named back end that this machine does not have.
    """
    if table.ndim != 2 or not table.size or input_ids.ndim != 1 or cu_seqlens.ndim != 1 or not cu_seqlens.size:
        raise ValueError(
            f"gather_mean needs a table [R, H], ids [T] and cu_seqlens [n + 1], got {table.shape}, {input_ids.shape} "
            f"and {cu_seqlens.shape}."
        )
    if table.dtype not in (*FLOATS, mx.int8):
        raise TypeError(f"gather_mean takes a table of float32, float16, bfloat16 or int8, got {table.dtype}.")
    places = {"input_ids": input_ids, "cu_seqlens": cu_seqlens, "mapping": mapping}
    for name, array in places.items():
        if array is not None and array.dtype != mx.int32:
            raise TypeError(f"gather_mean takes {name} as int32, got {array.dtype}.")
    vocabulary = table.shape[:1] if mapping is None else mapping.shape
    if len(vocabulary) != 1 or (weights is not None and weights.shape != vocabulary):
        raise ValueError(
            f"gather_mean needs a mapping and weights of one length [V], got {vocabulary} and "
            f"{None if weights is None else weights.shape}."
        )
    if not input_ids.size or cu_seqlens.size == 1:
        return mx.zeros((cu_seqlens.size - 1, table.shape[1]))
    variant = Variant(table.shape[1], table.dtype, mapping is not None, weights is not None)
    pick = GATHER_MEAN.pick(backend, variant, Load.of(input_ids.shape[0]))
    return pick(table, input_ids, cu_seqlens, mapping, weights)


class Variant(NamedTuple):
    """What a kernel would be compiled for."""

    width: int
    dtype: mx.Dtype
    mapped: bool
    weighted: bool

    def __str__(self) -> str:
        return f"{spelled(self.dtype)}, {self.width} wide"


def reference_gather_mean(
    table: mx.array,
    input_ids: mx.array,
    cu_seqlens: mx.array,
    mapping: mx.array | None = None,
    weights: mx.array | None = None,
) -> mx.array:
    """The same from composed MLX ops."""
    n, width = cu_seqlens.shape[0] - 1, table.shape[1]
    owner = sequence_ids(cu_seqlens, input_ids.shape[0])
    rows = input_ids if mapping is None else mapping[input_ids]
    kept = (rows >= 0).astype(mx.float32)
    share = kept if weights is None else kept * weights[input_ids].astype(mx.float32)
    vectors = table[mx.maximum(rows, 0)].astype(mx.float32) * share[:, None]
    count = mx.zeros((n,)).at[owner].add(kept)
    return mx.zeros((n, width)).at[owner].add(vectors) / mx.maximum(count, 1)[:, None]


def _sample(variant: Variant, load: Load | None) -> Arguments:
    width, dtype, mapped, weighted = variant
    texts = [1, 0, 37, 3, 5] if load is None else texts_of(load.tokens)
    vocabulary, rows = (50, 40) if load is None else (30_000, 10_000)
    rows = rows if mapped else vocabulary
    rng = np.random.default_rng(0)
    table = random(rows, width, dtype=mx.float32)
    ids = rng.integers(0, vocabulary, size=sum(texts)).astype(np.int32)
    # Some are passed over, and so is the whole of the first text.
    to = rng.integers(-1, rows, size=vocabulary).astype(np.int32)
    to[ids[0]] = -1
    return (
        (table * 20).astype(dtype) if dtype == mx.int8 else table.astype(dtype),
        mx.array(ids),
        starts(*texts),
        mx.array(to) if mapped else None,
        random(vocabulary, dtype=mx.float32, seed=1) if weighted else None,
    ), {}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for dtype in (mx.float32, mx.float16, mx.int8):
        for mapped, weighted in ((False, False), (True, True)):
            for tokens in (128, 4096):
                yield Variant(256, dtype, mapped, weighted), Load(tokens)


GATHER_MEAN = Op(
    "gather_mean",
    {},
    reference_gather_mean,
    lambda variant: {"reference": reference_gather_mean},
    _sample,
    _typical,
)
