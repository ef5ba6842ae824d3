"""Rotary position embedding of query and key, and the norms of their heads before it."""

from typing import Any

from custom_kernels.cpu.arguments import Floats, Ints, at, floats, ints
from custom_kernels.cpu.library import BAD_IDS, check, library


def rope(
    qkv: Floats,
    positions: Ints,
    cos: Floats,
    sin: Floats,
    num_heads: int,
    kv_heads: int | None = None,
    norms: Any = None,
) -> Floats:
    """Rotate query and key by position, the halves of each head being the pairs. Works in place.

    Args:
        qkv: [T, (num_heads + 2 kv_heads) * head_dim], as `attention` takes it; overwritten.
        positions: [T] int32, rows of the tables.
        cos: [P, head_dim / 2].
        sin: [P, head_dim / 2].
        num_heads: heads of the query, of an even size.
        kv_heads: heads of key and value each; None for num_heads.
        norms: `HeadNorms` of numpy arrays [head_dim], by which each head of query and key is normalised first, or None.

    Returns:
        `qkv` itself.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or a position outside the tables.
    """
    kv_heads = num_heads if kv_heads is None else kv_heads
    heads = num_heads + 2 * kv_heads
    if qkv.ndim != 2 or num_heads < 1 or kv_heads < 1 or qkv.shape[1] == 0 or qkv.shape[1] % (2 * heads):
        raise ValueError(
            f"rope needs qkv [T, (heads + 2 kv_heads) * head_dim] with an even head_dim, got {qkv.shape} for "
            f"{num_heads} heads and {kv_heads} kv_heads."
        )
    floats("rope", "qkv", qkv, qkv.shape)
    if not qkv.flags.writeable:
        raise ValueError("rope works in place, but qkv is read-only.")
    rows, head_dim = qkv.shape[0], qkv.shape[1] // heads
    ints("rope", "positions", positions, (rows,))
    floats("rope", "cos", cos, (None, head_dim // 2))
    floats("rope", "sin", sin, cos.shape)
    query, key, eps, offset = (None, None, 0.0, 0.0) if norms is None else norms
    if norms is not None:
        floats("rope", "the query's norm", query, (head_dim,))
        floats("rope", "the key's norm", key, (head_dim,))
    status = library().mlx_embed_rope(
        at(qkv),
        at(positions),
        at(cos),
        at(sin),
        cos.shape[0],
        rows,
        num_heads,
        kv_heads,
        head_dim,
        at(query),
        at(key),
        eps,
        offset,
    )
    if status == BAD_IDS:
        raise ValueError(f"rope got a position that is not one of the tables' {cos.shape[0]} rows.")
    check(status)
    return qkv
