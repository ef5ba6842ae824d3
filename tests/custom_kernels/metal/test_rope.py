"""The Metal rotation, emulated, against the formula."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import metal
from tests.custom_kernels.conftest import exact
from tests.custom_kernels.metal.conftest import ROUNDING, check, normal
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("total", "heads", "half"), [(1, 1, 4), (5, 3, 16), (19, 2, 32), (9, 12, 32)])
def test_rope(total: int, heads: int, half: int, dtype: mx.Dtype) -> None:
    qkv = normal((total, 6 * heads * half), dtype)
    positions = np.random.default_rng().integers(40, size=total).astype(np.int32)
    angles = np.random.default_rng().uniform(0, 6, size=(40, half)).astype(np.float32)
    cos, sin = np.cos(angles), np.sin(angles)
    with emulated_metal(total):
        found = metal.rope(qkv, mx.array(positions), mx.array(cos), mx.array(sin), heads)
    expected = exact(qkv).reshape(total, 3, heads, 2, half)
    turn = (cos + 1j * sin)[positions][:, None, None].astype(np.complex128)
    turned = (expected[:, :2, :, 0] + 1j * expected[:, :2, :, 1]) * turn
    expected[:, :2, :, 0], expected[:, :2, :, 1] = turned.real, turned.imag
    check(found, expected.reshape(qkv.shape), dtype)
