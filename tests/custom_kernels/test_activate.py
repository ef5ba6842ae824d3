"""Activations and gates against float64, on every back end that this machine has."""

import math

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import activate
from custom_kernels.cuda.activations import ACTIVATIONS as NUMBERED
from custom_kernels.ops.activate import ACTIVATIONS
from tests.custom_kernels.conftest import DTYPES, TOLERANCE, error, exact, present, random


@pytest.mark.parametrize("gate", [None, "first", "second"])
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 2), (37, 1536), (1000, 70), (5, 4100)])
@pytest.mark.parametrize("backend", present("activate"))
def test_activate(backend: str, rows: int, width: int, dtype: str, act: str, gate: str | None) -> None:
    x = random(rows, width, dtype=dtype, scale=4)
    values = exact(x)
    first, second = np.split(values, 2, axis=1) if gate else (values, values)
    active, other = (second, first) if gate == "second" else (first, second if gate else 1.0)
    if act == "gelu":
        expected = active * 0.5 * np.vectorize(math.erfc)(-active / math.sqrt(2))
    elif act == "gelu_tanh":
        expected = active * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (active + 0.044715 * active**3)))
    else:
        expected = np.maximum(active, 0) if act == "relu" else active / (1 + np.exp(-active))
    found = activate(x, act, gate, backend=backend)
    assert found.dtype == DTYPES[dtype]
    # MLX's ops round each step.
    assert error(found, expected * other) <= TOLERANCE[dtype] * (1 if backend == "cuda" else 8)


@pytest.mark.parametrize("backend", present("activate"))
def test_activate_of_a_slice(backend: str) -> None:
    x = random(7 * 48 + 1, dtype="float16")[1:].reshape(7, 48)
    assert error(activate(x, "relu", backend=backend), np.maximum(exact(x), 0)) == 0


def test_activate_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="swish"):
        activate(mx.zeros((2, 4)), "swish")
    with pytest.raises(ValueError, match="even N"):
        activate(mx.zeros((2, 5)), "silu", "first")
    with pytest.raises(TypeError, match="int32"):
        activate(mx.zeros((2, 4), dtype=mx.int32), "silu")


def test_the_kernels_have_every_activation() -> None:
    assert set(NUMBERED) == set(ACTIVATIONS)
