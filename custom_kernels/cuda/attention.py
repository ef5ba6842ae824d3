"""Packed attention on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.attention_hopper import attention_hopper
from custom_kernels.cuda.heuristics import (
    attention_tiles,
    float_attention_tiles,
    is_for_hopper,
    keys_seen,
    rotates_inside,
)
from custom_kernels.cuda.launch import Scalar, architecture, launch
from custom_kernels.cuda.rope import rope
from custom_kernels.cuda.sequences import slots
from custom_kernels.parameters import Rotation

MAX_HEAD_DIM = 256


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
    """One launch of attention.cu or, for what it does not take, of another file here; rope.cu may go before."""
    kv_heads = num_heads if kv_heads is None else kv_heads
    total, width = qkv.shape
    n = cu_seqlens.shape[0] - 1
    head_dim = width // (num_heads + 2 * kv_heads)
    if head_dim > MAX_HEAD_DIM:
        raise NotImplementedError(f"The CUDA attention kernels take heads up to {MAX_HEAD_DIM} wide, not {head_dim}.")
    seen = keys_seen(max_seqlen, window, causal)
    if rotation is not None and not rotates_inside(qkv.dtype, head_dim, seen):
        qkv, rotation = rope(qkv, *rotation[:3], num_heads, kv_heads, rotation.norms), None
    if rotation is None and bias is None and is_for_hopper(qkv.dtype, head_dim, seen) and architecture() == "sm_90":
        sizes = (num_heads, kv_heads, max_seqlen)
        return attention_hopper(qkv, cu_seqlens, *sizes, scale, window=window, causal=causal)
    # Without a bias the kernel still has the parameter, and never reads it; and so with the rest.
    inputs = [qkv, cu_seqlens, qkv if bias is None else bias]
    scalars: list[Scalar] = [total, n, 0 if bias is None else bias.shape[1] // 2, scale, window or 0]
    types = {"T": qkv.dtype, "B": inputs[2].dtype}
    constants = {"D": head_dim, "HEADS": num_heads, "GROUP": num_heads // kv_heads}
    constants |= {"HAS_BIAS": bias is not None, "HAS_WINDOW": window is not None, "CAUSAL": causal}
    if qkv.dtype != mx.float32 and head_dim % 16 == 0:
        warps, tiles, keys, team, kept = attention_tiles(head_dim, max_seqlen, bias is not None, num_heads // kv_heads)
        queries, name = warps // team * tiles * 16, "attention"
        constants |= {"BFLOAT": qkv.dtype == mx.bfloat16, "WARPS": warps, "TILES": tiles, "KEYS": keys}
        constants |= {"TEAM": team, "KEPT": kept}
        # Two stages of keys and values, and the queries; 8 elements keep the rows apart in the banks.
        memory = (4 * keys + (warps * tiles * 16 if kept else 0)) * (head_dim + 8) * 2
        norms = None if rotation is None else rotation.norms
        inputs += [cu_seqlens, cu_seqlens] if rotation is None else angles(rotation, qkv.dtype)
        types["A"] = mx.float32 if rotation is None else inputs[-1].dtype
        inputs += [qkv, qkv] if norms is None else [norms.query, norms.key]
        scalars += [0.0, 0.0] if norms is None else [norms.eps, norms.offset]
        types |= {"N": inputs[-1].dtype}
        constants |= {"ROTATE": rotation is not None, "NORM": norms is not None}
    elif qkv.dtype == mx.float32 and head_dim % 8 == 0:
        (warps, keys), team, name = float_attention_tiles(head_dim, max_seqlen), 1, "attention_float"
        queries = warps * 16
        stride = (head_dim + 27) // 32 * 32 + 4  # keeps the rows apart in the banks
        constants |= {"WARPS": warps, "KEYS": keys, "STRIDE": stride}
        memory = (4 * keys + queries) * stride * 4  # two stages of keys and values, and the queries
    else:
        warps, queries, team, name, memory = 4, 32, 1, "attention_general", 0
    blocks = slots(total, n, max_seqlen, queries) * (num_heads // team)
    return launch(
        name,
        inputs,
        scalars,
        (blocks, warps * 32),
        (total, num_heads * head_dim),
        qkv.dtype,
        types,
        constants,
        shared_memory=memory,
    )


def angles(rotation: Rotation, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    """Cosines and sines for rows of this type: for bfloat16 in float16, which is eight times as fine."""
    if dtype != mx.bfloat16:
        return rotation.cos, rotation.sin
    return rotation.halves or (rotation.cos.astype(mx.float16), rotation.sin.astype(mx.float16))
