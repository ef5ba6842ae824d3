"""Packed attention on Metal."""

import mlx.core as mx

from custom_kernels.metal.launch import kernel, round_up
from custom_kernels.metal.rope import rope
from custom_kernels.parameters import Rotation

MAX_HEAD_DIM = 256
THREADGROUP_MEMORY = 32768  # bytes, the least that a device with simdgroup matrices has


def attention(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    scale: float,
    bias: mx.array | None = None,
    rotation: Rotation | None = None,
    *,
    max_seqlen: int,
    window: int | None = None,
    causal: bool = False,
    kv_heads: int | None = None,
) -> mx.array:
    """One launch of `attention.metal`: a threadgroup for each head and 32 queries (16, if all sequences are short).

    A rotation is a launch of `rope.metal` before it.

    Raises:
        NotImplementedError: heads wider than 256, which threadgroup memory and registers cannot hold.
    """
    kv_heads = num_heads if kv_heads is None else kv_heads
    total, head_dim = qkv.shape[0], qkv.shape[1] // (num_heads + 2 * kv_heads)
    if head_dim > MAX_HEAD_DIM:
        raise NotImplementedError(f"The Metal attention kernel takes heads up to {MAX_HEAD_DIM} wide, got {head_dim}.")
    if rotation is not None:
        qkv = rope(qkv, *rotation[:3], num_heads, kv_heads, rotation.norms)
    simdgroups = 2 if max_seqlen <= 16 else 4
    row = round_up(head_dim, 8) * qkv.dtype.size + 16
    keys = next(keys for keys in (32, 16, 8) if 2 * keys * row <= THREADGROUP_MEMORY)
    blocks = total // (8 * simdgroups) + cu_seqlens.size - 1
    (out,) = kernel("attention", "qkv", "cu_seqlens", "bias", "scale", header="#include <metal_simdgroup_matrix>\n")(
        inputs=[
            qkv,
            cu_seqlens,
            qkv if bias is None else bias,  # without one the kernel still has the parameter, and never reads it
            mx.array([scale], dtype=mx.float32),
        ],
        template=[
            ("T", qkv.dtype),
            ("DIM", head_dim),
            ("HEADS", num_heads),
            ("GROUP", num_heads // kv_heads),
            ("SIMDGROUPS", simdgroups),
            ("KEYS", keys),
            ("HAS_BIAS", bias is not None),
            ("WINDOW", 0 if window is None else min(window, 2**30) + 1),
            ("CAUSAL", causal),
        ],
        grid=(32 * simdgroups, num_heads, blocks),
        threadgroup=(32 * simdgroups, 1, 1),
        output_shapes=[(total, num_heads * head_dim)],
        output_dtypes=[qkv.dtype],
        stream=mx.gpu,
    )
    return out
