"""Arrays that every op takes: their dtypes, how these are spelled, and random ones for checks."""

import math
from typing import Any

import mlx.core as mx
import numpy as np

FLOATS = (mx.float32, mx.float16, mx.bfloat16)
# The widest rows that a GPU kernel keeps in registers.
MAX_WIDTH = 8192


def random(*shape: int, dtype: mx.Dtype, scale: float = 1.0, seed: int = 0) -> mx.array:
    """Normally distributed values, the same at every call; large arrays repeat themselves, which takes less time."""
    values = np.random.default_rng(seed).standard_normal(min(math.prod(shape), 2**18), dtype=np.float32) * scale
    return mx.array(np.resize(values, shape).astype(np.float32)).astype(dtype)


def starts(*lengths: int) -> mx.array:
    """The cu_seqlens of texts of these lengths: int32 [n + 1]."""
    return mx.array(np.cumsum([0, *lengths]).astype(np.int32))


def texts_of(tokens: int) -> list[int]:
    """The lengths of short texts that have so many tokens together, for samples."""
    return [32] * (tokens // 32) or [tokens]


def spelled(dtype: mx.Dtype) -> str:
    """The dtype's name: "float16"."""
    return str(dtype).removeprefix("mlx.core.")


def is_float(x: Any) -> bool:
    """Whether it is an MLX array of one of the FLOATS."""
    return isinstance(x, mx.array) and x.dtype in FLOATS


def as_float32(x: Any) -> Any:
    """An array of floats in float32; anything else as it is."""
    return x.astype(mx.float32) if is_float(x) else x
