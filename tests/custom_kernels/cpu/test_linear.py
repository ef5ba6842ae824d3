"""The native linear layer against float64."""

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import WIDTHS, activate64, close, linear64, normal, rng

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("out_features", [1, 31, 32, 33, 100, 385])
def test_linear_of_any_shape(width: int, out_features: int) -> None:
    g = rng(width, out_features)
    weight, bias = normal(g, out_features, width, scale=width**-0.5), normal(g, out_features)
    layer = cpu.Linear(weight, bias)
    for rows in (0, 1, 5, 14, 15, 29, 131):
        x, residual = normal(g, rows, width), normal(g, rows, out_features)
        close(cpu.linear(x, layer, residual=residual), linear64(x, weight, bias, residual=residual))


@pytest.mark.parametrize("activation", [None, "gelu", "gelu_tanh", "relu", "silu"])
def test_linear_epilogue(activation: str | None, threads: int) -> None:
    g = rng(1)
    weight, x, residual = normal(g, 70, 50, scale=0.1), normal(g, 300, 50), normal(g, 300, 70)
    for bias in (None, normal(g, 70)):
        layer = cpu.Linear(weight, bias)
        close(cpu.linear(x, layer, activation), linear64(x, weight, bias, activation))
        close(cpu.linear(x, layer, activation, residual), linear64(x, weight, bias, activation, residual))


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
def test_activations_over_the_whole_range(activation: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 40001), [-1e30, -1e4, -100, -88, 0, 88, 100, 1e4]]).astype(np.float32)
    identity = cpu.Linear(np.ones((1, 1), np.float32))
    with np.errstate(over="ignore"):
        wanted = activate64(x.astype(np.float64), activation)
    found = cpu.linear(x[:, None], identity, activation)[:, 0]
    np.testing.assert_allclose(found, wanted, rtol=3e-7, atol=1e-6)


def test_bad_linear_input() -> None:
    x, layer = np.ones((4, 8), np.float32), cpu.Linear(np.ones((6, 8), np.float32))
    with pytest.raises(TypeError, match="float32"):
        cpu.linear(x.astype(np.float64), layer)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        cpu.linear(x[:, :7].copy(), layer)
    with pytest.raises(ValueError, match="C-contiguous"):
        cpu.linear(np.ones((8, 4), np.float32).T, layer)
    with pytest.raises(ValueError, match="no activation 'swish'"):
        cpu.linear(x, layer, "swish")
    with pytest.raises(ValueError, match="residual"):
        cpu.linear(x, layer, residual=x)
    with pytest.raises(ValueError, match="with elements"):
        cpu.Linear(np.ones((0, 8), np.float32))
    with pytest.raises(ValueError, match="bias"):
        cpu.Linear(np.ones((6, 8), np.float32), np.ones(8, np.float32))
