"""The Metal linear_max, emulated, against numpy."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import Linear, metal
from custom_kernels.arrays import starts
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.parametrize(("dtype", "biased", "block"), [(mx.float32, True, 2**24), (mx.float16, False, 600)])
def test_linear_max(dtype: mx.Dtype, biased: bool, block: int) -> None:
    rng = np.random.default_rng()
    texts = [3, 0, 1, 9]
    # Whole numbers: products are exact in either dtype.
    x, weight, bias = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((13, 8), (300, 8), (300,)))
    layer = Linear(mx.array(weight).astype(dtype), mx.array(bias).astype(dtype) if biased else None)
    with emulated_metal(0):
        found = np.array(metal.linear_max(mx.array(x).astype(dtype), layer, starts(*texts), block=block))
    products = x @ weight.T + (bias if biased else 0)
    parts = np.split(products, np.cumsum(texts)[:-1])
    expected = [part.max(axis=0) if len(part) else np.full(300, -np.inf) for part in parts]
    np.testing.assert_array_equal(found, np.stack(expected))
