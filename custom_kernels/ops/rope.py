"""Rotary position embedding (Su et al., 2021) of query and key, the halves of each head being the pairs."""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from custom_kernels import cuda, metal
from custom_kernels.arrays import FLOATS, random, spelled
from custom_kernels.choice.op import Arguments, Load, Op, typical_encoders


def rope(
    qkv: mx.array,
    positions: mx.array,
    cos: mx.array,
    sin: mx.array,
    num_heads: int,
    *,
    backend: str | None = None,
) -> mx.array:
    """Rotate query and key by position; the value passes.

    Args:
        qkv: [T, 3 * hidden], as `attention` takes it.
        positions: int32 [T], rows of the tables.
        cos: float32 [P, head_dim / 2].
        sin: float32 [P, head_dim / 2].
        num_heads: heads; must divide hidden into heads of even size.
        backend: as in `layer_norm`, "fast" aside.

    Returns:
        [T, 3 * hidden] of qkv's dtype; the rotation is in float32.

    Raises:
        ValueError: shapes that do not fit each other, or an unknown back end.
        TypeError: a qkv that is not float32, float16 or bfloat16, positions or tables of other dtypes than these.
        RuntimeError: a named back end that this machine does not have.
    """
    total, width = qkv.shape
    half = cos.shape[-1]
    if width != 6 * num_heads * half or cos.shape != sin.shape or positions.shape != (total,):
        raise ValueError(
            f"rope needs qkv [T, 3 * heads * head_dim], positions [T] and tables [P, head_dim / 2], got {qkv.shape} "
            f"for {num_heads} heads, {positions.shape}, {cos.shape} and {sin.shape}."
        )
    if qkv.dtype not in FLOATS or positions.dtype != mx.int32 or {cos.dtype, sin.dtype} != {mx.float32}:
        raise TypeError(
            f"rope needs qkv of float32, float16 or bfloat16, int32 positions and float32 tables, got {qkv.dtype}, "
            f"{positions.dtype}, {cos.dtype} and {sin.dtype}."
        )
    if not total:
        return qkv
    variant = Variant(qkv.dtype, num_heads, half)
    return ROPE.pick(backend, variant, Load.of(total))(qkv, positions, cos, sin, num_heads)


class Variant(NamedTuple):
    """What a kernel is compiled for."""

    dtype: mx.Dtype
    heads: int
    half: int

    def __str__(self) -> str:
        return f"{spelled(self.dtype)}, {self.heads} heads of {2 * self.half}"


def reference_rope(qkv: mx.array, positions: mx.array, cos: mx.array, sin: mx.array, num_heads: int) -> mx.array:
    """The same from composed MLX ops."""
    total, width = qkv.shape
    heads = qkv.reshape(total, 3, num_heads, 2, cos.shape[1])
    turned = heads[:, :2].astype(mx.float32)
    first, second = turned[:, :, :, 0], turned[:, :, :, 1]
    c, s = cos[positions][:, None, None], sin[positions][:, None, None]
    rotated = mx.stack([first * c - second * s, second * c + first * s], axis=3).astype(qkv.dtype)
    return mx.concatenate([rotated, heads[:, 2:]], axis=1).reshape(total, width)


def _sample(variant: Variant, load: Load | None) -> Arguments:
    dtype, heads, half = variant
    rows, total = (11, 9) if load is None else (512, load.tokens)
    angles = random(rows, half, dtype=mx.float32, seed=1)
    positions = mx.array(np.random.default_rng(0).integers(0, rows, size=total).astype(np.int32))
    return (random(total, 6 * heads * half, dtype=dtype), positions, mx.cos(angles), mx.sin(angles), heads), {}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for width, head_dim, dtype, load in typical_encoders():
        yield Variant(dtype, width // head_dim, head_dim // 2), load


ROPE = Op(
    "rope",
    {"metal": metal.rope, "cuda": cuda.rope},
    reference_rope,
    lambda variant: {"reference": reference_rope},
    _sample,
    _typical,
)
