"""Packed attention."""

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, Ints, at, bias_length, floats, ints
from custom_kernels.cpu.library import check_sequences, library, product


def attention(
    qkv: Floats,
    cu_seqlens: Ints,
    num_heads: int,
    scale: float,
    bias: Floats | None = None,
    *,
    max_seqlen: int | None = None,
    window: int | None = None,
    dtype: str = "float32",
) -> Floats:
    """softmax(scale * Q K^T + bias) V within each sequence of a packed batch.

    Args:
        qkv: [T, 3 * hidden]: query, key and value side by side, each split into `num_heads` heads.
        cu_seqlens: [n + 1] int32, from 0 to T.
        num_heads: heads; must divide hidden.
        scale: usually 1 / sqrt(head_dim).
        bias: [num_heads, 2 L - 1], added to the score of query i and key j by their distance, at j - i + L - 1;
            L >= the longest sequence.
        max_seqlen: taken for the sake of the other back ends; nothing here needs it.
        window: attend only where |i - j| <= window. None attends everywhere.
        dtype: of the products: "float32", or "bfloat16", to which qkv and the weights of values are then rounded, while
            scores and softmax stay float32.

    Returns:
        [T, hidden].

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, sequences that do not run from 0 to T, or one
            longer than L; a dtype that is not here, or an odd head_dim in bfloat16.
    """
    del max_seqlen
    if qkv.ndim != 2 or num_heads < 1 or qkv.shape[1] == 0 or qkv.shape[1] % (3 * num_heads):
        raise ValueError(f"attention needs qkv [T, 3 * heads * head_dim], got {qkv.shape} for {num_heads} heads.")
    floats("attention", "qkv", qkv, qkv.shape)
    ints("attention", "cu_seqlens", cu_seqlens, (None,))
    if window is not None and window < 0:
        raise ValueError(f"attention needs a window of at least 0, got {window}.")
    length = bias_length("attention", bias, num_heads)
    total, hidden = qkv.shape[0], qkv.shape[1] // 3
    narrow = attends_in("attention", dtype, hidden // num_heads)
    out = memory.empty((total, hidden))
    status = library().mlx_embed_attention(
        at(qkv),
        at(cu_seqlens),
        cu_seqlens.size - 1,
        total,
        num_heads,
        hidden // num_heads,
        scale,
        at(bias),
        length,
        -1 if window is None else window,
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
    if dtype != "bfloat16" or not product(dtype):
        raise ValueError(f"{op} has no attention in {dtype!r} on this processor; it has 'float32'.")
    if head_dim % 2:
        raise ValueError(f"{op} in bfloat16 needs heads of an even size, got {head_dim}.")
    return True
