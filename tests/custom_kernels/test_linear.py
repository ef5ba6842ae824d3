"""Linear layers with an activation against float64, and weights as the kernels read them."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import Linear, lay_out_linear, linear
from custom_kernels.cuda import heuristics
from tests.custom_kernels.conftest import (
    DTYPES,
    EXACT,
    TOLERANCE,
    error,
    exact,
    exact_linear,
    random,
    random_layer,
)


def laid_out_on_cuda(monkeypatch: pytest.MonkeyPatch, weight: mx.array, then: Any = None) -> mx.array | None:
    monkeypatch.setattr("custom_kernels.ops.linear.default_backend", lambda: "cuda")
    monkeypatch.setattr(mx, "device_info", lambda *_: {"architecture": "sm_90"})
    return lay_out_linear(weight, then)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_laid_out_are_where_the_kernels_look(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    weight = random(96, 128, dtype=dtype)
    laid_out = laid_out_on_cuda(monkeypatch, weight)
    assert laid_out is not None
    assert laid_out.dtype == weight.dtype
    assert laid_out.shape == (2, 96, 64)
    found = exact(laid_out)
    for place in range(96):
        # A thread's sums of 32 columns are 2 of each 8, and shall be 8 neighbours.
        eight, thread, odd = place % 32 // 8, place % 8 // 2, place % 2
        row = place // 32 * 32 + thread * 8 + eight * 2 + odd
        for block in range(2):
            for chunk in range(8):
                begin = block * 64 + (chunk ^ place % 8) * 8
                expected = exact(weight)[row, begin : begin + 8]
                np.testing.assert_array_equal(found[block, place, chunk * 8 : chunk * 8 + 8], expected)


def test_float32_is_laid_out_as_two_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random(96, 128, dtype="float32", scale=0.1)
    laid_out = laid_out_on_cuda(monkeypatch, weight)
    assert laid_out is not None
    assert laid_out.shape == (4, 96, 64)
    first, second = np.split(exact(laid_out.view(mx.float16)), 2)
    whole = exact(laid_out_on_cuda(monkeypatch, weight.astype(mx.bfloat16)))  # in the same places, but for 16 columns
    columns = np.arange(64).reshape(-1, 4, 2, 2).swapaxes(1, 2).reshape(-1)
    for row in range(96):
        swizzled = (np.arange(8) ^ row % 8)[:, None] * 8 + np.arange(8)
        found = ((first + second) / 1024)[:, row, swizzled.reshape(-1)]
        plain = whole[:, row, swizzled.reshape(-1)][:, columns]
        assert np.abs(found - plain).max() <= 2**-8 * np.abs(plain).max()
    exact_weight = np.sort(exact(weight).reshape(-1))
    np.testing.assert_allclose(np.sort(((first + second) / 1024).reshape(-1)), exact_weight, rtol=0, atol=2**-25)
    assert np.abs(second).max() <= 2**-11 * np.abs(first).max()


@pytest.mark.parametrize("scale", [2e-3, 100.0, float("nan")])
def test_weights_whose_numbers_float16_lacks_are_not_laid_out(monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    weight = mx.clip(random(96, 64, dtype="float32"), -1, 1)
    assert laid_out_on_cuda(monkeypatch, weight) is not None
    assert laid_out_on_cuda(monkeypatch, weight * scale) is None


@pytest.mark.parametrize(
    ("outputs", "inputs", "dtype"),
    [(32, 64, "float32"), (96, 100, "float32"), (96, 100, "float16"), (40, 64, "float16"), (96, 832, "float16")],
)
def test_what_no_kernel_takes_is_not_laid_out(
    monkeypatch: pytest.MonkeyPatch, outputs: int, inputs: int, dtype: str
) -> None:
    assert laid_out_on_cuda(monkeypatch, random(outputs, inputs, dtype=dtype)) is None


def test_wider_rows_are_laid_out_where_more_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert laid_out_on_cuda(monkeypatch, random(96, 832, dtype="float16"), then="activation") is not None
    assert laid_out_on_cuda(monkeypatch, random(96, 2112, dtype="float16"), then="activation") is None
    assert laid_out_on_cuda(monkeypatch, random(768, 3072, dtype="float16"), then="norm") is not None
    assert laid_out_on_cuda(monkeypatch, random(384, 3072, dtype="float16"), then="norm") is None


def test_nothing_is_laid_out_for_another_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random(96, 64, dtype="float16")
    assert laid_out_on_cuda(monkeypatch, weight) is not None
    monkeypatch.setattr(mx, "device_info", lambda *_: {"architecture": "sm_80"})
    assert lay_out_linear(weight) is None
    monkeypatch.setattr("custom_kernels.ops.linear.default_backend", lambda: "metal")
    assert lay_out_linear(weight) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": mx.zeros((5, 64))}, "takes x"),
        ({"x": mx.zeros((2, 5, 32))}, "takes x"),
        ({"layer": Linear(mx.zeros((48, 32)), mx.zeros((1,)))}, "got a bias"),
        ({"layer": Linear(mx.zeros((48, 32)), None, mx.zeros((1, 48, 64)))}, "is not lay_out_linear's"),
        (
            {"x": mx.zeros((5, 64)), "layer": Linear(mx.zeros((32, 64)), None, mx.zeros((2, 32, 64), mx.float16))},
            "float16 .* is not lay_out_linear's of a weight float32",
        ),
        ({"residual": mx.zeros((4, 48))}, "residual"),
        ({"act": "swish"}, "no 'swish'"),
    ],
)
def test_bad_linear_input(change: dict[str, Any], message: str) -> None:
    good = {"x": mx.zeros((5, 32)), "layer": Linear(mx.zeros((48, 32)), mx.zeros((48,)))}
    linear(**good)
    with pytest.raises(ValueError, match=message):
        linear(**(good | change))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", EXACT)
def test_linear_of_what_is_not_laid_out(act: str | None, dtype: str) -> None:
    weight, bias = random_layer(48, 32, dtype)
    x, residual = random(17, 32, dtype=dtype), random(17, 48, dtype=dtype)
    # The product is rounded before the activation.
    bound = max(3 * TOLERANCE[dtype], 4e-3 if mx.cuda.is_available() else 0)
    for b in (bias, None):
        expected = EXACT[act](exact_linear(x, weight, b))
        assert error(linear(x, Linear(weight, b), act), expected) <= bound
        found = linear(x, Linear(weight, b), act, residual)
        assert found.dtype == DTYPES[dtype]
        assert error(found, expected + exact(residual)) <= bound
    assert linear(x[:0], Linear(weight, bias), act).shape == (0, 48)


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "few"),
    [
        (127, 384, 384, True),
        (128, 384, 384, False),
        (256, 768, 768, True),
        (512, 384, 1536, False),
        (512, 3072, 768, True),  # 24 tiles, each a long time
        (131072, 3072, 768, False),
    ],
)
def test_few_rows_in_float32_are_cublas_s(rows: int, inputs: int, outputs: int, few: bool) -> None:
    assert heuristics.is_few(mx.float32, rows, outputs, inputs) == few
