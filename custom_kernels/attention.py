"""Packed (varlen) self-attention: every sequence attends to itself, and nothing else."""

import mlx.core as mx
import numpy as np

from custom_kernels.packed import pad, unpad

# Finite, so that a row with no valid key stays finite, and representable in float16.
MASKED = -3e4


def attention(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    scale: float,
    bias: mx.array | None = None,
    *,
    max_seqlen: int | None = None,
) -> mx.array:
    """softmax(scale * Q K^T + bias) V within each sequence of a packed batch.

    Args:
        qkv: [T, 3 * hidden]: query, key and value side by side, each split into `num_heads` heads.
        cu_seqlens: int32 [n + 1], from 0 to T, the start of each sequence.
        num_heads: heads; must divide hidden.
        scale: usually 1 / sqrt(head_dim).
        bias: [num_heads, L, L] with L >= the longest sequence, shared by all sequences (MPNet's relative bias).
        max_seqlen: an upper bound of the sequences' length. None reads `cu_seqlens` on the host, which a
            compiled graph cannot do.

    Returns:
        [T, hidden] of qkv's dtype.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    total, width = qkv.shape
    if width % (3 * num_heads):
        raise ValueError(
            f"attention needs qkv [T, 3 * heads * head_dim], got {tuple(qkv.shape)} for {num_heads} heads."
        )
    if max_seqlen is None:
        max_seqlen = int(np.diff(np.array(cu_seqlens)).max(initial=0))
    if bias is not None and (
        bias.shape[0] != num_heads or bias.shape[1] != bias.shape[2] or bias.shape[1] < max_seqlen
    ):
        raise ValueError(f"attention needs a bias [{num_heads}, L, L] with L >= {max_seqlen}, got {tuple(bias.shape)}.")
    head_dim = width // 3 // num_heads
    block, valid = pad(qkv, cu_seqlens, max_seqlen)
    n = block.shape[0]
    q, k, v = block.reshape(n, max_seqlen, 3, num_heads, head_dim).transpose(2, 0, 3, 1, 4)
    mask = None if bias is None else bias[None, :, :max_seqlen, :max_seqlen].astype(qkv.dtype)
    if valid is not None:
        padding = mx.where(valid, 0.0, MASKED).astype(qkv.dtype)[:, None, None, :]
        mask = padding if mask is None else mask + padding
    out = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    return unpad(out.transpose(0, 2, 1, 3).reshape(n, max_seqlen, width // 3), cu_seqlens, total)
