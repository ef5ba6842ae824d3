"""Attention of DeBERTa (He et al., 2021), whose scores depend on content and distance together.

Written once, for MLX arrays and numpy arrays, on blocks [..., L, head_dim].
"""

from typing import Any


def by_distance(x: Any) -> Any:
    """For each row i, the columns of x from L - 1 - i on: [..., L, 2 L] to [..., L, L]."""
    length = x.shape[-2]
    flat = x.reshape(*x.shape[:-2], 2 * length * length)
    used = flat[..., length - 1 : length - 1 + length * (2 * length - 1)]
    return used.reshape(*x.shape[:-2], length, 2 * length - 1)[..., :length]


def scores(q: Any, k: Any, to_key: Any | None, to_query: Any | None, scale: float) -> Any:
    """scale * (q_i k_j + q_i P_(i - j) + k_j R_(i - j)): [..., L, L].

    Args:
        q: [..., L, d].
        k: [..., L, d].
        to_key: P of the distances L - 1 down to -L: [heads, 2 L, d]; None adds nothing.
        to_query: R of the distances 1 - L up to L: [heads, 2 L, d]; None adds nothing.
        scale: goes into the factors, since float16 does not hold all products.
    """
    q = q * scale
    total = q @ k.swapaxes(-1, -2)
    if to_key is not None:
        total = total + by_distance(q @ to_key.swapaxes(-1, -2))
    if to_query is not None:
        total = total + by_distance((k * scale) @ to_query.swapaxes(-1, -2)).swapaxes(-1, -2)
    return total
