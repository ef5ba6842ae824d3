"""The native LayerNorm against float64."""

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import WIDTHS, close, norm64, normal, rng

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]


@pytest.mark.parametrize("width", WIDTHS)
def test_layer_norm(width: int) -> None:
    g = rng(width)
    weight, bias = normal(g, width), normal(g, width)
    for rows in (0, 1, 37):
        x, residual = normal(g, rows, width), normal(g, rows, width)
        close(cpu.layer_norm(x, weight, bias, 1e-5), norm64(x, weight, bias, 1e-5), 1e-5)
        close(cpu.layer_norm(x, weight, None, 1e-5, residual), norm64(x, weight, None, 1e-5, residual), 1e-5)


@pytest.mark.parametrize("width", [7, 384, 1000, 5000])
def test_layer_norm_of_rows_far_from_zero(width: int) -> None:
    """The mean is rounded, by much beside such deviations."""
    ones = np.ones(width, np.float32)
    for mean, deviation in ((1000, 1), (-100, 0.01)):
        x = normal(rng(2), 5, width, scale=deviation) + np.float32(mean)
        close(cpu.layer_norm(x, ones, None, 1e-12), norm64(x, ones, None, 1e-12), 1e-5)
    assert not cpu.layer_norm(np.full((2, width), 3.7, np.float32), ones, None, 1e-5).any()


def test_bad_layer_norm_input() -> None:
    with pytest.raises(TypeError, match="list"):
        cpu.layer_norm(np.ones((4, 8), np.float32), [1.0] * 8, None, 1e-5)  # type: ignore[arg-type]
