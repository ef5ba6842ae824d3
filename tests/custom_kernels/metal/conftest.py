"""What the tests of the emulated Metal kernels share."""

import mlx.core as mx
import numpy as np

from tests.custom_kernels.conftest import exact

# Half a unit in the last place of a result, relative to it.
ROUNDING = {mx.float32: 2**-24, mx.float16: 2**-11, mx.bfloat16: 2**-8}
LENGTHS = [1, 31, 32, 33, 0, 127, 128, 0, 511, 2]


def normal(shape: tuple[int, ...], dtype: mx.Dtype, offset: float = 0, deviation: float = 1) -> mx.array:
    """Fresh random values."""
    return mx.array(np.random.default_rng().normal(offset, deviation, size=shape).astype(np.float32)).astype(dtype)


def check(found: mx.array, expected: np.ndarray, dtype: mx.Dtype, slack: np.ndarray | float = 4e-6) -> None:
    """Equal but for one rounding to dtype, and float32 arithmetic on the way; NaN is never equal."""
    assert found.dtype == dtype
    assert found.shape == expected.shape
    assert (np.abs(exact(found) - expected) <= ROUNDING[dtype] * np.abs(expected) + slack).all()


def normalised(h: np.ndarray, weight: mx.array, bias: mx.array | None) -> np.ndarray:
    h = h - h.mean(axis=-1, keepdims=True)
    y = h / np.sqrt(np.square(h).mean(axis=-1, keepdims=True) + 1e-5) * exact(weight)
    return y if bias is None else y + exact(bias)
