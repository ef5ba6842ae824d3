"""Mean pooling of a packed batch: from hidden states to one vector a text, in float32."""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx

from custom_kernels import cuda, metal
from custom_kernels.arrays import FLOATS, MAX_WIDTH, random, spelled, starts, texts_of
from custom_kernels.choice.op import Arguments, Load, Op, typical_encoders
from custom_kernels.packed import lengths, places, sequence_ids


def mean_pool(
    hidden: mx.array, cu_seqlens: mx.array, skip: int = 0, normalize: bool = False, *, backend: str | None = None
) -> mx.array:
    """The average of each sequence's tokens but its first `skip` (all of them, where it has no more).

    Args:
        hidden: [T, H], float32, float16 or bfloat16.
        cu_seqlens: int32 [n + 1], from 0 to T.
        skip: tokens of a prompt, left out.
        normalize: scale each row to length 1; a zero row stays zero.
        backend: as in `layer_norm`, "fast" aside.

    Returns:
        float32 [n, H]; zeros for an empty sequence.

    Raises:
        ValueError: shapes that do not fit, a negative skip, or an unknown back end.
        TypeError: a dtype that is not one of the three.
        RuntimeError: a named back end that this machine does not have.
    """
    if hidden.ndim != 2 or cu_seqlens.ndim != 1 or cu_seqlens.dtype != mx.int32 or cu_seqlens.size == 0:
        raise ValueError(
            f"mean_pool needs hidden [T, H] and cu_seqlens int32 [n + 1], got {hidden.shape} and "
            f"{cu_seqlens.dtype} {cu_seqlens.shape}."
        )
    if hidden.dtype not in FLOATS:
        raise TypeError(f"mean_pool takes float32, float16 or bfloat16, but hidden is {hidden.dtype}.")
    if skip < 0:
        raise ValueError(f"mean_pool needs a skip of at least 0, got {skip}.")
    if not hidden.size or cu_seqlens.size == 1 or hidden.shape[1] > MAX_WIDTH:
        return reference_mean_pool(hidden, cu_seqlens, skip, normalize)
    variant = Variant(hidden.shape[1], hidden.dtype, skip, normalize)
    return MEAN_POOL.pick(backend, variant, Load.of(hidden.shape[0]))(hidden, cu_seqlens, skip, normalize)


class Variant(NamedTuple):
    """What a kernel is compiled for, and may be wrong for."""

    width: int
    dtype: mx.Dtype
    skip: int
    normalize: bool

    def __str__(self) -> str:
        return f"{spelled(self.dtype)}, {self.width} wide"


def reference_mean_pool(hidden: mx.array, cu_seqlens: mx.array, skip: int = 0, normalize: bool = False) -> mx.array:
    """The same from composed MLX ops."""
    total, width = hidden.shape
    n = cu_seqlens.shape[0] - 1
    if not hidden.size or n == 0:  # MLX's scatter of rows without elements ends the process
        return mx.zeros((n, width))
    owner, count = sequence_ids(cu_seqlens, total), lengths(cu_seqlens)
    keep = (places(cu_seqlens, total) >= skip) | (count <= skip)[owner]
    kept = mx.where(keep[:, None], hidden.astype(mx.float32), 0.0)
    pooled = mx.zeros((n, width)).at[owner].add(kept)
    pooled = pooled / mx.maximum(mx.where(count > skip, count - skip, count), 1)[:, None]
    if normalize:
        pooled = pooled / mx.maximum(mx.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
    return pooled


def _sample(variant: Variant, load: Load | None) -> Arguments:
    width, dtype, skip, normalize = variant
    texts = [1, skip, 0, skip + 3, 37, 2, 0, skip + 1] if load is None else texts_of(load.tokens)
    return (random(sum(texts), width, dtype=dtype), starts(*texts), skip, normalize), {}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for width, _, dtype, load in typical_encoders():
        yield Variant(width, dtype, 0, False), load


MEAN_POOL = Op(
    "mean_pool",
    {"metal": metal.mean_pool, "cuda": cuda.mean_pool},
    reference_mean_pool,
    lambda variant: {"reference": reference_mean_pool},
    _sample,
    _typical,
)
