"""The native feed-forward block against float64."""

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import activate64, close, linear64, norm64, normal, remembered, rng

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]


@remembered
def inner64(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, gated: bool | str) -> np.ndarray:
    """What the first layer and the activation make of x."""
    h = linear64(x, weight, bias)
    if not gated:
        return activate64(h, "gelu")
    first, second = np.split(h, 2, axis=1)
    return activate64(first, "gelu") * second if gated == "first" else activate64(second, "gelu") * first


@pytest.mark.parametrize("gated", [False, "first", "second"])
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize(("width", "inner"), [(1, 3), (33, 70), (96, 1000)])
def test_feed_forward(width: int, inner: int, normed: bool, gated: bool | str, threads: int) -> None:
    g = rng(width, 12)
    up_weight, up_bias = normal(g, inner * (2 if gated else 1), width, scale=width**-0.5), normal(g, 2 * inner)
    down_weight, down_bias = normal(g, width, inner, scale=inner**-0.5), normal(g, width)
    up_bias = up_bias[: len(up_weight)].copy()
    norm = normal(g, width), normal(g, width)
    gamma, beta = norm if normed else (None, None)
    up, down = cpu.Linear(up_weight, up_bias), cpu.Linear(down_weight, down_bias)
    for rows in (0, 3, 90, 400):
        x, other = normal(g, rows, width), normal(g, rows, width)
        plain = inner64(x, up_weight, up_bias, gated) @ down_weight.astype(np.float64).T + down_bias
        for residual, added in ((True, x), (False, 0.0), (other, other)):
            found = cpu.feed_forward(x, up, down, "gelu", gamma, beta, 1e-3, gated=gated, residual=residual)
            close(found, norm64(plain + added, gamma, beta, 1e-3), 3e-5)


def test_bad_feed_forward_input() -> None:
    x, layer = np.ones((4, 8), np.float32), cpu.Linear(np.ones((6, 8), np.float32))
    with pytest.raises(ValueError, match="down"):
        cpu.feed_forward(x, layer, layer, "gelu", None, None, 1e-5)
    with pytest.raises(ValueError, match="gated"):
        cpu.feed_forward(x, layer, layer, "gelu", None, None, 1e-5, gated="both")
