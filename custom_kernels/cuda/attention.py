"""Packed attention on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.heuristics import attention_tiles
from custom_kernels.cuda.launch import launch

MAX_HEAD_DIM = 256


def attention(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    scale: float,
    bias: mx.array | None = None,
    *,
    max_seqlen: int,
    window: int | None = None,
) -> mx.array:
    """One launch of `attention.cu`, on the tensor cores, or of `attention_general.cu`."""
    total, width = qkv.shape
    n = cu_seqlens.shape[0] - 1
    head_dim = width // 3 // num_heads
    types = {"T": qkv.dtype, "B": qkv.dtype if bias is None else bias.dtype}
    constants = {"D": head_dim, "HAS_BIAS": bias is not None, "HAS_WINDOW": window is not None}
    if qkv.dtype != mx.float32 and head_dim % 16 == 0 and head_dim <= 128:
        warps, tiles, keys = attention_tiles(head_dim, max_seqlen, bias is not None)
        queries, name = warps * tiles * 16, "attention"
        constants |= {"BFLOAT": qkv.dtype == mx.bfloat16, "WARPS": warps, "TILES": tiles, "KEYS": keys}
    elif head_dim <= MAX_HEAD_DIM:
        warps, queries, name = 4, 32, "attention_general"
    else:
        raise NotImplementedError(f"The CUDA attention kernels take heads up to {MAX_HEAD_DIM} wide, not {head_dim}.")
    # Blocks for the longest sequence in every place, or for the tokens there are: see attention.cu.
    blocks = min(n * -(-max_seqlen // queries), total // queries + n) * num_heads
    return launch(
        name,
        # Without a bias the kernel still has the parameter, and never reads it.
        [qkv, cu_seqlens, qkv if bias is None else bias],
        [total, n, num_heads, 0 if bias is None else bias.shape[1] // 2, scale, window or 0],
        (blocks, warps * 32),
        (total, width // 3),
        qkv.dtype,
        types,
        constants,
    )
