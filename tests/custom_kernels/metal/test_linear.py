"""The Metal linear layers of few rows, emulated, against float64."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import Linear, metal
from tests.custom_kernels.conftest import EXACT, exact, exact_linear
from tests.custom_kernels.metal.conftest import check, normal
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.parametrize(
    ("rows", "outputs", "inputs", "dtype", "act", "with_bias", "with_residual", "seed"),
    [
        (2, 8, 64, mx.float32, None, False, False, 0),
        (8, 24, 384, mx.float16, "gelu", True, False, 1),
        (11, 16, 128, mx.bfloat16, "gelu_tanh", True, True, 2),
        (29, 16, 576, mx.float32, "silu", True, True, 3),
        (64, 8, 64, mx.float16, "relu", False, True, 4),
    ],
)
def test_linear(
    rows: int, outputs: int, inputs: int, dtype: mx.Dtype, act: str | None, with_bias: bool, with_residual: bool,
    seed: int,
) -> None:  # fmt: skip
    x, weight = normal((rows, inputs), dtype), normal((outputs, inputs), dtype, deviation=inputs**-0.5)
    bias = normal((outputs,), dtype) if with_bias else None
    residual = normal((rows, outputs), dtype) if with_residual else None
    with emulated_metal(seed):
        found = metal.linear(x, Linear(weight, bias), act, residual)
    expected = EXACT[act](exact_linear(x, weight, bias))
    check(found, expected if residual is None else expected + exact(residual), dtype, slack=8e-6)


@pytest.mark.parametrize("act", EXACT)
def test_activations_of_extreme_values(act: str) -> None:
    """x times a unit matrix is x: from far below 0 to far above."""
    values = np.float32([-1e30, -300, -20, -6, -3, -1, -1e-3, 0, 1e-3, 0.5, 1, 3, 6, 20, 300, 1e30])
    x = mx.zeros((2, 64), dtype=mx.float32)
    x[0, :16] = mx.array(values)
    with emulated_metal():
        found = metal.linear(x, Linear(mx.eye(64)), act)
    expected = EXACT[act](values.astype(np.float64))
    np.testing.assert_allclose(exact(found)[0, :16], expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 8, 64), (65, 8, 64), (5, 12, 64), (5, 8, 96)])
def test_what_it_does_not_take(rows: int, outputs: int, inputs: int) -> None:
    with emulated_metal(), pytest.raises(NotImplementedError, match=f"these are {rows} rows, {inputs} inputs"):
        metal.linear(mx.zeros((rows, inputs)), Linear(mx.zeros((outputs, inputs))), None)
