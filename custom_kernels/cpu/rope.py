"""Rotary position embedding of query and key."""

from custom_kernels.cpu.arguments import Floats, Ints, at, floats, ints
from custom_kernels.cpu.library import BAD_IDS, check, library


def rope(qkv: Floats, positions: Ints, cos: Floats, sin: Floats, num_heads: int) -> Floats:
    """Rotate query and key by position, the halves of each head being the pairs. Works in place.

    Args:
        qkv: [T, 3 * hidden], as `attention` takes it; overwritten.
        positions: [T] int32, rows of the tables.
        cos: [P, head_dim / 2].
        sin: [P, head_dim / 2].
        num_heads: heads; must divide hidden into heads of even size.

    Returns:
        `qkv` itself.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or a position outside the tables.
    """
    if qkv.ndim != 2 or num_heads < 1 or qkv.shape[1] == 0 or qkv.shape[1] % (6 * num_heads):
        raise ValueError(
            f"rope needs qkv [T, 3 * heads * head_dim] with an even head_dim, got {qkv.shape} for {num_heads} heads."
        )
    floats("rope", "qkv", qkv, qkv.shape)
    if not qkv.flags.writeable:
        raise ValueError("rope works in place, but qkv is read-only.")
    rows, head_dim = qkv.shape[0], qkv.shape[1] // 3 // num_heads
    ints("rope", "positions", positions, (rows,))
    floats("rope", "cos", cos, (None, head_dim // 2))
    floats("rope", "sin", sin, cos.shape)
    status = library().mlx_embed_rope(at(qkv), at(positions), at(cos), at(sin), cos.shape[0], rows, num_heads, head_dim)
    if status == BAD_IDS:
        raise ValueError(f"rope got a position that is not one of the tables' {cos.shape[0]} rows.")
    check(status)
    return qkv
