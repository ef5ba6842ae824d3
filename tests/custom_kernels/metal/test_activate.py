"""The Metal activations, emulated, against float64."""

import math

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import metal
from custom_kernels.metal.activate import ACTIVATIONS as NUMBERED
from custom_kernels.ops.activate import ACTIVATIONS
from tests.custom_kernels.conftest import exact
from tests.custom_kernels.metal.conftest import check, normal
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
FORMULAS = {
    "gelu": lambda x: x * 0.5 * np.vectorize(math.erfc)(-x / math.sqrt(2)),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize(
    ("act", "gate", "dtype", "width"),
    [
        ("gelu", None, mx.float32, 66),
        ("gelu_tanh", "first", mx.float16, 40),
        ("relu", None, mx.bfloat16, 6),
        ("silu", "second", mx.float32, 40),
        ("gelu", "second", mx.bfloat16, 6),
    ],
)
def test_activate(act: str, gate: str | None, dtype: mx.Dtype, width: int) -> None:
    x = normal((7, width), dtype, deviation=4)
    first, second = np.split(exact(x), 2, axis=1) if gate else (exact(x), 1.0)
    active, other = (second, first) if gate == "second" else (first, second)
    with emulated_metal(width):
        found = metal.activate(x, act, gate)
    check(found, FORMULAS[act](active) * other, dtype, slack=2e-5)


@pytest.mark.parametrize("act", NUMBERED)
def test_what_is_no_number_stays_so(act: str) -> None:
    with emulated_metal():
        found = metal.activate(mx.array([[mx.nan, mx.inf] * 4]), act)
    np.testing.assert_array_equal(np.array(found), np.float32([[np.nan, np.inf] * 4]))


def test_every_activation_is_there() -> None:
    assert set(NUMBERED) == set(ACTIVATIONS)
