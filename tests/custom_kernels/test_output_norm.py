"""Linear layers with the residual and its LayerNorm against float64."""

from typing import Any

import mlx.core as mx
import pytest

from custom_kernels import Linear, output_norm
from tests.custom_kernels.conftest import DTYPES, TOLERANCE, error, exact, exact_linear, normed, random, random_layer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": mx.zeros((5, 64))}, "takes x"),
        ({"x": mx.zeros((2, 5, 32))}, "takes x"),
        ({"layer": Linear(mx.zeros((48, 32)), mx.zeros((1,)))}, "got a bias"),
        ({"layer": Linear(mx.zeros((48, 32)), None, mx.zeros((1, 48, 64)))}, "is not lay_out_linear's"),
        ({"residual": mx.zeros((4, 48))}, "residual"),
        ({"weight": mx.zeros((4, 48))}, "LayerNorm's weight"),
        ({"bias": mx.zeros((4, 48))}, "LayerNorm's bias"),
    ],
)
def test_bad_output_norm_input(change: dict[str, Any], message: str) -> None:
    good = {"x": mx.zeros((5, 32)), "layer": Linear(mx.zeros((48, 32)), mx.zeros((48,))), "residual": mx.zeros((5, 48))}
    good |= {"weight": mx.zeros((48,)), "bias": mx.zeros((48,)), "eps": 1e-5}
    output_norm(**good)
    with pytest.raises(ValueError, match=message):
        output_norm(**(good | change))


@pytest.mark.parametrize("dtype", DTYPES)
def test_output_norm_of_what_is_not_laid_out(dtype: str) -> None:
    layer = Linear(*random_layer(48, 32, dtype))
    x, residual = random(17, 32, dtype=dtype), random(17, 48, dtype=dtype)
    weight, bias = random(48, dtype=dtype), random(48, dtype=dtype)
    bound = max(3 * TOLERANCE[dtype], 4e-3 if mx.cuda.is_available() else 0)
    for without in ((), ("layer",), ("norm",), ("layer", "norm")):
        used = layer._replace(bias=None) if "layer" in without else layer
        offset = None if "norm" in without else bias
        found = output_norm(x, used, residual, weight, offset, 1e-5)
        zeros = mx.zeros_like(bias) if offset is None else offset
        expected = normed(exact_linear(x, used.weight, used.bias) + exact(residual), weight, zeros, 1e-5)
        assert error(found, expected) <= bound
    assert output_norm(x[:0], layer, residual[:0], weight, bias, 1e-5).shape == (0, 48)
