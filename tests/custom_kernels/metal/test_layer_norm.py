"""The Metal LayerNorm, emulated, against float64; and the source that MLX makes of it."""

import mlx.core as mx
import pytest

from custom_kernels import metal
from tests.custom_kernels.conftest import exact
from tests.custom_kernels.metal.conftest import check, normal, normalised
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.parametrize(
    ("width", "dtype", "with_residual", "offset", "seed"),
    [
        (384, mx.float16, True, 0, 0),
        (33, mx.float32, False, 0, 1),
        (33, mx.float32, False, 1e6, 2),
        (1, mx.float32, False, 3, 3),
        (2500, mx.bfloat16, True, 2, 4),
    ],
)
def test_layer_norm(width: int, dtype: mx.Dtype, with_residual: bool, offset: float, seed: int) -> None:
    x, weight, bias = normal((5, width), dtype, offset), normal((width,), dtype), normal((width,), dtype)
    residual = normal((5, width), dtype) if with_residual else None
    with emulated_metal(seed):
        found = metal.layer_norm(x, weight, bias, 1e-5, residual)
    h = exact(x) if residual is None else exact(x) + exact(residual)
    check(found, normalised(h, weight, bias), dtype, slack=1e-5)
