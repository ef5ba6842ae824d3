"""The Metal linear_max, emulated, against numpy."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import Linear, metal
from custom_kernels.arrays import starts
from tests.custom_kernels.conftest import spoilt
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


def test_linear_max() -> None:
    rng = np.random.default_rng()
    texts = [3, 0, 1, 9]
    # Whole numbers, so that products are exact.
    x, weight, bias = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((13, 8), (300, 8), (300,)))
    # Two blocks of 150 columns, of one kernel.
    layer = Linear(mx.array(weight).astype(mx.float16), mx.array(bias).astype(mx.float16))
    with emulated_metal(0):
        found = np.array(metal.linear_max(mx.array(x).astype(mx.float16), layer, starts(*texts), block=13 * 150))
    parts = np.split(x @ weight.T + bias, np.cumsum(texts)[:-1])
    expected = [part.max(axis=0) if len(part) else np.full(300, -np.inf) for part in parts]
    np.testing.assert_array_equal(found, np.stack(expected))


@pytest.mark.parametrize("place", [0, 4, 39])
def test_the_greatest_beside_what_is_no_number_is_none(place: int) -> None:
    rows = spoilt(place)
    with emulated_metal(2):
        found = np.array(
            metal.linear_max(mx.array(rows), Linear(mx.array(np.ones((300, 3), dtype=np.float32))), starts(40, 40))
        )
    assert np.isnan(found[0]).all()
    assert (found[1] == 3).all()
