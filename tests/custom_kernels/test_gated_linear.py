"""Linear layers that are a gate against float64."""

from typing import Any

import mlx.core as mx
import pytest

from custom_kernels import Linear, gated_linear
from custom_kernels.ops.activate import Gate
from tests.custom_kernels.conftest import DTYPES, TOLERANCE, error, exact_linear, gated, random, random_layer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": mx.zeros((5, 64))}, "takes x"),
        ({"layer": Linear(mx.zeros((48, 32)), mx.zeros((1,)))}, "got a bias"),
        ({"layer": Linear(mx.zeros((47, 32)))}, "even number"),
        ({"act": None}, "no None"),
        ({"act": "swish"}, "no 'swish'"),
        ({"gate": "third"}, "gate 'third'"),
    ],
)
def test_bad_gated_linear_input(change: dict[str, Any], message: str) -> None:
    good = {"x": mx.zeros((5, 32)), "layer": Linear(mx.zeros((48, 32))), "act": "silu", "gate": "first"}
    gated_linear(**good)
    with pytest.raises(ValueError, match=message):
        gated_linear(**(good | change))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gate", ["first", "second"])
def test_gated_linear_of_what_is_not_laid_out(gate: Gate, dtype: str) -> None:
    weight, bias = random_layer(48, 32, dtype)
    x = random(17, 32, dtype=dtype)
    for b in (bias, None):
        found = gated_linear(x, Linear(weight, b), "silu", gate)
        assert found.dtype == DTYPES[dtype]
        # The product is rounded before the activation.
        bound = max(3 * TOLERANCE[dtype], 4e-3 if mx.cuda.is_available() else 0)
        assert error(found, gated(exact_linear(x, weight, b), "silu", gate)) <= bound
    assert gated_linear(x[:0], Linear(weight, bias), "silu", gate).shape == (0, 24)
