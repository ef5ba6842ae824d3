"""The Metal RMSNorm, emulated, against float64."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import metal
from tests.custom_kernels.conftest import exact
from tests.custom_kernels.metal.conftest import check, normal
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.parametrize(
    ("rows", "width", "added", "offset", "dtype"),
    [(1, 1, False, 0.0, mx.float32), (5, 130, True, 1.0, mx.bfloat16), (3, 1024, False, 1.0, mx.float16)],
)
def test_rms_norm(rows: int, width: int, added: bool, offset: float, dtype: mx.Dtype) -> None:
    x, weight = normal((rows, width), dtype, deviation=3), normal((width,), dtype)
    residual = normal((rows, width), dtype) if added else None
    with emulated_metal(width):
        found = metal.rms_norm(x, weight, 1e-6, residual, offset)
    h = exact(x)
    expected = h / np.sqrt((h**2).mean(axis=-1, keepdims=True) + 1e-6) * (offset + exact(weight))
    check(found, expected if residual is None else expected + exact(residual), dtype)


def test_sums_stay_within_float16() -> None:
    x = mx.array([[1.0, -1.0], [1.0, mx.nan]]).astype(mx.float16)
    residual = mx.array([[65504.0, -65504.0], [65504.0, 0.0]]).astype(mx.float16)
    with emulated_metal():
        found = exact(metal.rms_norm(x, mx.full((2,), 500.0), 1e-6, residual))
    assert found[0].tolist() == [65504, -65504]
    assert np.isnan(found[1]).all()
