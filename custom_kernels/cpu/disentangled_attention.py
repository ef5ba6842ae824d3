"""Packed attention of DeBERTa (He et al., 2021), whose scores depend on content and distance together."""

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, Ints, at, floats, ints
from custom_kernels.cpu.attention import attends_in
from custom_kernels.cpu.library import BAD_IDS, check_sequences, library


def disentangled_attention(
    qkv: Floats,
    to_key: Floats | None,
    to_query: Floats | None,
    rows: Ints,
    cu_seqlens: Ints,
    num_heads: int,
    scale: float,
    *,
    dtype: str = "float32",
) -> Floats:
    """softmax(scale * (q_i k_j + q_i P_(i - j) + k_j R_(i - j))) V within each sequence of a packed batch.

    Args:
        qkv: [T, 3 * num_heads * head_dim]: query, key and value side by side, each split into its heads.
        to_key: [U, num_heads * head_dim]: P, which queries are multiplied by, split into heads; None for nothing.
        to_query: the same of R, for keys.
        rows: [2 L + 1] int32: which row P and R of each distance from -L to L are; L >= the longest sequence.
        cu_seqlens: [n + 1] int32, from 0 to T.
        num_heads: heads of all of them.
        scale: usually 1 / sqrt(3 * head_dim), where there are both.
        dtype: of the products, as in `attention`; P and R are rounded to it too.

    Returns:
        [T, num_heads * head_dim].

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, sequences that do not run from 0 to T, or one
            longer than L; rows that are not there; a dtype that is not here, or an odd head_dim in bfloat16.
    """
    if qkv.ndim != 2 or num_heads < 1 or qkv.shape[1] == 0 or qkv.shape[1] % (3 * num_heads):
        raise ValueError(
            f"disentangled_attention needs qkv [T, 3 * heads * head_dim], got {qkv.shape} for {num_heads} heads."
        )
    floats("disentangled_attention", "qkv", qkv, qkv.shape)
    ints("disentangled_attention", "cu_seqlens", cu_seqlens, (None,))
    ints("disentangled_attention", "rows", rows, (None,))
    if rows.size % 2 == 0:
        raise ValueError(
            f"disentangled_attention needs rows [2 L + 1], of each distance to both sides, got {rows.shape}."
        )
    total, hidden = qkv.shape[0], qkv.shape[1] // 3
    narrow = attends_in("disentangled_attention", dtype, hidden // num_heads)
    tables = {name: table for name, table in (("to_key", to_key), ("to_query", to_query)) if table is not None}
    if not tables:
        raise ValueError("disentangled_attention needs to_key, to_query or both; without distances, use attention.")
    count = next(iter(tables.values())).shape[0]
    for name, table in tables.items():
        floats("disentangled_attention", name, table, (count, hidden))
    longest = rows.size // 2
    out = memory.empty((total, hidden))
    status = library().mlx_embed_disentangled_attention(
        at(qkv),
        at(cu_seqlens),
        cu_seqlens.size - 1,
        total,
        num_heads,
        hidden // num_heads,
        scale,
        at(to_key),
        at(to_query),
        count,
        at(rows),
        longest,
        narrow,
        at(out),
    )
    if status == BAD_IDS:
        raise ValueError(f"disentangled_attention needs rows from 0 to {count - 1}.")
    check_sequences("disentangled_attention", status, total, longest)
    return out
