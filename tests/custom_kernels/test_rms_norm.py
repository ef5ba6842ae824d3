"""rms_norm against float64, on every back end that this machine has, and natively."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu, rms_norm
from tests.custom_kernels.conftest import DTYPES, TOLERANCE, error, exact, poison, present, random

BACKENDS = [*present("rms_norm"), "fast", None]


def expected(x: mx.array, weight: mx.array, eps: float, residual: mx.array | None, offset: float) -> np.ndarray:
    h = exact(x)
    y = h / np.sqrt((h**2).mean(axis=-1, keepdims=True) + eps) * (offset + exact(weight))
    return y if residual is None else y + exact(residual)


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (5, 33), (37, 1024), (3, 1030), (9, 2560), (2, 8192)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_rms_norm(backend: str | None, rows: int, width: int, dtype: str, offset: float, added: bool) -> None:
    x, weight = random(rows, width, dtype=dtype, scale=3.0), random(width, dtype=dtype)
    residual = random(rows, width, dtype=dtype) if added else None
    poison(rows, width, dtype=dtype)
    found = rms_norm(x, weight, 1e-6, residual, offset, backend=backend)
    assert found.dtype == DTYPES[dtype]
    # MLX's own rounds the weight and the norm as well, and the sum again.
    slack = 3 if backend in ("fast", None) else 1
    assert error(found, expected(x, weight, 1e-6, residual, offset)) <= TOLERANCE[dtype] * slack


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_of_another_dtype_and_a_slice(backend: str | None) -> None:
    x = random(7 * 96 + 1, dtype="float16")[1:].reshape(7, 96)
    weight = random(96)
    found = rms_norm(x, weight, 1e-6, backend=backend)
    assert found.dtype == mx.float16
    assert error(found, expected(x, weight, 1e-6, None, 0.0)) <= TOLERANCE["float16"] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_rows_feel_eps_and_large_ones_do_not_overflow(backend: str | None) -> None:
    weight = mx.ones((64,))
    for value, eps, wanted in ((1e-3, 1e-6, 0.5**0.5), (1e-20, 1e-6, 1e-17), (1e15, 1e-6, 1.0)):
        found = exact(rms_norm(mx.full((2, 64), value), weight, eps, backend=backend))
        assert np.abs(found / wanted - 1).max() <= 1e-5, value


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_stay_within_float16(backend: str | None) -> None:
    """As in Gemma's own code."""
    x = mx.array([[1.0, -1.0], [1.0, mx.nan]]).astype(mx.float16)
    residual = mx.array([[65504.0, -65504.0], [65504.0, 0.0]]).astype(mx.float16)
    found = exact(rms_norm(x, mx.full((2,), 500.0), 1e-6, residual, backend=backend))
    assert found[0].tolist() == [65504, -65504]
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing(backend: str | None) -> None:
    assert rms_norm(mx.zeros((0, 8)), mx.ones((8,)), 1e-6, backend=backend).shape == (0, 8)


@pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("width", [1, 7, 16, 33, 1024, 1030])
def test_the_native_norm(width: int, added: bool) -> None:
    x, weight = random(45, width, scale=3.0), random(width)
    residual = random(45, width) if added else None
    found = cpu.rms_norm(np.array(x), np.array(weight), 1e-6, None if residual is None else np.array(residual), 1.0)
    wanted = expected(x, weight, 1e-6, residual, 1.0)
    assert (np.abs(found - wanted) <= 2e-6 * np.maximum(np.abs(wanted), 1)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": mx.zeros((2, 8), dtype=mx.int32)}, "x is"),
        ({"weight": mx.ones((7,))}, r"weight of shape \(8,\)"),
        ({"residual": mx.zeros((3, 8))}, "residual like x"),
        ({"residual": mx.zeros((2, 8), dtype=mx.float16)}, "residual like x"),
        ({"x": mx.zeros(())}, "last axis"),
        ({"backend": "vulkan"}, "no backend 'vulkan'"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    arguments = {"x": mx.zeros((2, 8)), "weight": mx.ones((8,)), "eps": 1e-6}
    with pytest.raises((ValueError, TypeError), match=message):
        rms_norm(**(arguments | change))


def test_the_native_norm_refuses_what_does_not_fit() -> None:
    one = np.ones((2, 8), np.float32)
    with pytest.raises(ValueError, match="weight"):
        cpu.rms_norm(one, np.ones(7, np.float32), 1e-6)
    with pytest.raises(ValueError, match="residual"):
        cpu.rms_norm(one, np.ones(8, np.float32), 1e-6, np.ones((3, 8), np.float32))
    with pytest.raises(ValueError, match="last axis"):
        cpu.rms_norm(np.float32(1).reshape(()), np.ones(1, np.float32), 1e-6)
