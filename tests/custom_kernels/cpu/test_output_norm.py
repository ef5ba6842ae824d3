"""The native linear layer with the residual and its LayerNorm against float64."""

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import close, linear64, norm64, normal, rng

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]


@pytest.mark.parametrize("width", [1, 30, 33, 384])
@pytest.mark.parametrize("normed", [True, False])
def test_output_norm(width: int, normed: bool, threads: int) -> None:
    g = rng(width, 11)
    weight, bias = normal(g, width, width, scale=width**-0.5), normal(g, width)
    gamma, beta = (normal(g, width), normal(g, width)) if normed else (None, None)
    layer = cpu.Linear(weight, bias)
    for rows in (0, 3, 400):
        x, residual = normal(g, rows, width), normal(g, rows, width)
        wanted = norm64(linear64(x, weight, bias, residual=residual), gamma, beta, 1e-5)
        close(cpu.output_norm(x, layer, residual, gamma, beta, 1e-5), wanted, 2e-5)
        wanted = norm64(linear64(x, weight, bias), gamma, beta, 1e-5)
        close(cpu.output_norm(x, layer, None, gamma, beta, 1e-5), wanted, 2e-5)


def test_bad_output_norm_input() -> None:
    x, layer = np.ones((4, 8), np.float32), cpu.Linear(np.ones((6, 8), np.float32))
    with pytest.raises(ValueError, match="no weight"):
        cpu.output_norm(x, layer, None, None, np.ones(6, np.float32), 1e-5)
