"""Rotary position embedding (Su et al., 2021) of query and key, the halves of each head being the pairs.

With `norms`, each head of query and key has its RMSNorm first, as in Qwen3 and Gemma 3.
"""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from custom_kernels import cuda, metal
from custom_kernels.arrays import FLOATS, random, spelled
from custom_kernels.choice.op import Arguments, Load, Op, typical_encoders
from custom_kernels.ops.rms_norm import reference_rms_norm
from custom_kernels.parameters import HeadNorms, Rotation


def rope(
    qkv: mx.array,
    positions: mx.array,
    cos: mx.array,
    sin: mx.array,
    num_heads: int,
    kv_heads: int | None = None,
    norms: HeadNorms | None = None,
    *,
    backend: str | None = None,
) -> mx.array:
    """Rotate query and key by position; the value passes.

    Args:
        qkv: [T, (num_heads + 2 kv_heads) * head_dim], as `attention` takes it.
        positions: int32 [T], rows of the tables.
        cos: float32 [P, head_dim / 2].
        sin: float32 [P, head_dim / 2].
        num_heads: heads of the query, of an even size.
        kv_heads: heads of key and value each; None for num_heads.
        norms: what normalises each head of query and key first, or None.
        backend: as in `layer_norm`, "fast" aside.

    Returns:
        An array of qkv's shape and dtype; norms and rotation are in float32.

    Raises:
        ValueError: shapes that do not fit each other, or an unknown back end.
        TypeError: a qkv or norms that are not float32, float16 or bfloat16, or the norms of two of these; positions or
            tables of other dtypes than those above.
        RuntimeError: a named back end that this machine does not have.
    """
    kv_heads = num_heads if kv_heads is None else kv_heads
    heads = num_heads + 2 * kv_heads
    if qkv.ndim != 2 or num_heads < 1 or kv_heads < 1 or qkv.shape[1] % heads:
        raise ValueError(
            f"rope needs qkv [T, (heads + 2 kv_heads) * head_dim], got {qkv.shape} for {num_heads} and {kv_heads} "
            "heads."
        )
    if qkv.dtype not in FLOATS:
        raise TypeError(f"rope needs qkv of float32, float16 or bfloat16, got {qkv.dtype}.")
    total, half = qkv.shape[0], qkv.shape[1] // heads // 2
    check_rotation("rope", Rotation(positions, cos, sin, norms), total, qkv.shape[1] // heads)
    if not qkv.size:
        return qkv
    variant = Variant(qkv.dtype, num_heads, half, kv_heads, Normed.of(norms))
    return ROPE.pick(backend, variant, Load.of(total))(qkv, positions, cos, sin, num_heads, kv_heads, norms)


def check_rotation(op: str, rotation: Rotation, total: int, head_dim: int) -> None:
    """Raise ValueError or TypeError where it is not one for so many tokens with heads of this size."""
    positions, cos, sin, norms = rotation[:4]
    if positions.shape != (total,) or cos.ndim != 2 or cos.shape != sin.shape or cos.shape[1] * 2 != head_dim:
        raise ValueError(
            f"{op} needs positions [{total}] and tables [P, {head_dim / 2:g}], got {positions.shape}, {cos.shape} "
            f"and {sin.shape}."
        )
    if positions.dtype != mx.int32 or {cos.dtype, sin.dtype} != {mx.float32}:
        raise TypeError(
            f"{op} needs int32 positions and float32 tables, got {positions.dtype}, {cos.dtype} and {sin.dtype}."
        )
    if norms is None:
        return
    if not norms.query.shape == norms.key.shape == (head_dim,):
        raise ValueError(f"{op} needs norms [{head_dim}], got {norms.query.shape} and {norms.key.shape}.")
    if norms.query.dtype not in FLOATS or norms.key.dtype != norms.query.dtype:
        raise TypeError(
            f"{op} needs norms of one dtype, float32, float16 or bfloat16, got {norms.query.dtype} and "
            f"{norms.key.dtype}."
        )


class Normed(NamedTuple):
    """What a kernel is compiled for of the heads' norms."""

    weight: mx.Dtype
    eps: float
    offset: float

    @classmethod
    def of(cls, norms: HeadNorms | None) -> "Normed | None":
        """None without norms."""
        return None if norms is None else cls(norms.query.dtype, norms.eps, norms.offset)

    def sample(self, head_dim: int) -> HeadNorms:
        """Random norms of these."""
        query, key = (random(head_dim, dtype=self.weight, seed=seed) for seed in (3, 4))
        return HeadNorms(query, key, self.eps, self.offset)


class Variant(NamedTuple):
    """What a kernel is compiled for."""

    dtype: mx.Dtype
    heads: int
    half: int
    kv_heads: int
    normed: Normed | None = None

    def __str__(self) -> str:
        fewer = "" if self.kv_heads == self.heads else f" and {self.kv_heads}"
        normed = "" if self.normed is None else ", normalised"
        return f"{spelled(self.dtype)}, {self.heads}{fewer} heads of {2 * self.half}{normed}"


def reference_rope(
    qkv: mx.array,
    positions: mx.array,
    cos: mx.array,
    sin: mx.array,
    num_heads: int,
    kv_heads: int | None = None,
    norms: HeadNorms | None = None,
) -> mx.array:
    """The same from composed MLX ops."""
    total = qkv.shape[0]
    half, kv_heads = cos.shape[1], kv_heads or num_heads
    turning = 2 * half * (num_heads + kv_heads)
    turned = qkv[:, :turning].reshape(total, num_heads + kv_heads, 2 * half).astype(mx.float32)
    if norms is not None:
        parts = ((turned[:, :num_heads], norms.query), (turned[:, num_heads:], norms.key))
        normed = [reference_rms_norm(heads, weight, norms.eps, None, norms.offset) for heads, weight in parts]
        turned = mx.concatenate(normed, axis=1)
    first, second = turned[..., :half], turned[..., half:]
    c, s = cos[positions][:, None], sin[positions][:, None]
    rotated = mx.concatenate([first * c - second * s, second * c + first * s], axis=-1).astype(qkv.dtype)
    return mx.concatenate([rotated.reshape(total, turning), qkv[:, turning:]], axis=1)


def _sample(variant: Variant, load: Load | None) -> Arguments:
    dtype, heads, half, kv_heads, normed = variant
    rows, total = (11, 9) if load is None else (512, load.tokens)
    angles = random(rows, half, dtype=mx.float32, seed=1)
    positions = mx.array(np.random.default_rng(0).integers(0, rows, size=total).astype(np.int32))
    qkv = random(total, 2 * (heads + 2 * kv_heads) * half, dtype=dtype)
    norms = None if normed is None else normed.sample(2 * half)
    return (qkv, positions, mx.cos(angles), mx.sin(angles), heads, kv_heads, norms), {}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for width, head_dim, dtype, load in typical_encoders():
        heads = width // head_dim
        yield Variant(dtype, heads, head_dim // 2, heads), load
    for _, _, dtype, load in typical_encoders():
        yield Variant(dtype, 16, 64, 8, Normed(dtype, 1e-6, 0.0)), load  # Qwen3-Embedding-0.6B
        yield Variant(dtype, 3, 128, 1, Normed(dtype, 1e-6, 1.0)), load  # EmbeddingGemma


ROPE = Op(
    "rope",
    {"metal": metal.rope, "cuda": cuda.rope},
    reference_rope,
    lambda variant: {"reference": reference_rope},
    _sample,
    _typical,
)
