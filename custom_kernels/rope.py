"""Rotary position embedding (Su et al., 2021) of query and key, the halves of each head being the pairs."""

from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from custom_kernels import cpu

Array = TypeVar("Array", mx.array, npt.NDArray[Any])


def rope(qkv: Array, positions: Array, cos: Array, sin: Array, num_heads: int) -> Array:
    """Rotate query and key by position; the value passes.

    Args:
        qkv: [T, 3 * hidden], as `attention` takes it. A numpy array is overwritten, and is what comes back.
        positions: int32 [T], rows of the tables.
        cos: float32 [P, head_dim / 2].
        sin: float32 [P, head_dim / 2].
        num_heads: heads; must divide hidden into heads of even size.

    Returns:
        [T, 3 * hidden] of qkv's dtype; the rotation is in float32.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    if isinstance(qkv, np.ndarray):
        return cpu.rope(qkv, positions, cos, sin, num_heads)
    total, width = qkv.shape
    half = cos.shape[-1]
    if width != 6 * num_heads * half or cos.shape != sin.shape or positions.shape != (total,):
        raise ValueError(
            f"rope needs qkv [T, 3 * heads * head_dim], positions [T] and tables [P, head_dim / 2], got {qkv.shape} "
            f"for {num_heads} heads, {positions.shape}, {cos.shape} and {sin.shape}."
        )
    heads = qkv.reshape(total, 3, num_heads, 2, half)
    turned = heads[:, :2].astype(mx.float32)
    first, second = turned[:, :, :, 0], turned[:, :, :, 1]
    c, s = cos[positions][:, None, None], sin[positions][:, None, None]
    rotated = mx.stack([first * c - second * s, second * c + first * s], axis=3).astype(qkv.dtype)
    return mx.concatenate([rotated, heads[:, 2:]], axis=1).reshape(total, width)
