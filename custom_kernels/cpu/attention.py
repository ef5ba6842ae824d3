"""Packed attention."""

from typing import Any

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, Ints, at, bias_length, floats, ints
from custom_kernels.cpu.library import attends, check_sequences, library
from custom_kernels.cpu.rope import rope


def attention(
    qkv: Floats,
    cu_seqlens: Ints,
    num_heads: int,
    scale: float,
    bias: Floats | None = None,
    rotation: Any = None,
    *,
    max_seqlen: int | None = None,
    window: int | None = None,
    causal: bool = False,
    kv_heads: int | None = None,
    dtype: str = "float32",
) -> Floats:
    """softmax(scale * Q K^T + bias) V within each sequence of a packed batch.

    Args:
        qkv: [T, (num_heads + 2 kv_heads) * head_dim]: query, key and value side by side, each split into its heads;
            overwritten where there is a rotation.
        cu_seqlens: [n + 1] int32, from 0 to T.
        num_heads: heads of the query.
        scale: usually 1 / sqrt(head_dim).
        bias: [num_heads, 2 L - 1], added to the score of query i and key j by their distance, at j - i + L - 1;
            L >= the longest sequence.
        rotation: a `Rotation` of numpy arrays, by which query and key are normalised and rotated first; None for not.
        max_seqlen: taken for the sake of the other back ends; nothing here needs it.
        window: attend only where |i - j| <= window. None attends everywhere.
        causal: attend only where j <= i.
        kv_heads: heads of key and value each, which divides num_heads; None for as many.
        dtype: of the products: "float32", or "bfloat16", to which qkv and the weights of values are then rounded, while
            scores and softmax stay float32.

    Returns:
        [T, num_heads * head_dim].

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, sequences that do not run from 0 to T, or one
            longer than L; a dtype that is not here, or an odd head_dim in bfloat16.
    """
    del max_seqlen
    kv_heads = num_heads if kv_heads is None else kv_heads
    heads = num_heads + 2 * kv_heads
    shared = num_heads >= 1 and kv_heads >= 1 and num_heads % kv_heads == 0
    if qkv.ndim != 2 or not shared or qkv.shape[1] == 0 or qkv.shape[1] % heads:
        raise ValueError(
            f"attention needs qkv [T, (heads + 2 kv_heads) * head_dim], got {qkv.shape} for {num_heads} heads and "
            f"{kv_heads} kv_heads."
        )
    floats("attention", "qkv", qkv, qkv.shape)
    ints("attention", "cu_seqlens", cu_seqlens, (None,))
    if window is not None and window < 0:
        raise ValueError(f"attention needs a window of at least 0, got {window}.")
    length = bias_length("attention", bias, num_heads)
    total, head_dim = qkv.shape[0], qkv.shape[1] // heads
    narrow = attends_in("attention", dtype, head_dim)
    if rotation is not None:
        positions, cos, sin, norms = rotation[:4]
        rope(qkv, positions, cos, sin, num_heads, kv_heads, norms)
    out = memory.empty((total, num_heads * head_dim))
    status = library().mlx_embed_attention(
        at(qkv),
        at(cu_seqlens),
        cu_seqlens.size - 1,
        total,
        num_heads,
        kv_heads,
        head_dim,
        scale,
        at(bias),
        length,
        -1 if window is None else min(window, total),  # a wider one need not fit into 64 bits
        causal,
        narrow,
        at(out),
    )
    check_sequences("attention", status, total, None if bias is None else length)
    return out


def attends_in(op: str, dtype: str, head_dim: int) -> bool:
    """Whether attention is in bfloat16, of what it may be: float32 is always there.

    Raises:
        ValueError: a dtype that this processor does not have, or heads of an odd size in bfloat16.
    """
    if dtype == "float32":
        return False
    if dtype != "bfloat16" or not attends(dtype):
        raise ValueError(f"{op} has no attention in {dtype!r} on this processor; it has 'float32'.")
    if head_dim % 2:
        raise ValueError(f"{op} in bfloat16 needs heads of an even size, got {head_dim}.")
    return True
