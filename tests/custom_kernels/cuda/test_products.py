"""Products on Hopper's tensor cores against float64, with what follows them."""

import math
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import Linear, cuda, lay_out_linear, linear, output_norm
from custom_kernels.choice import op
from tests.custom_kernels.conftest import (
    DTYPES,
    EXACT,
    TOLERANCE,
    error,
    exact,
    exact_linear,
    forget_kernels,
    gated,
    normed,
    poison,
    random,
    random_layer,
)

HOPPER = mx.cuda.is_available() and mx.device_info(mx.gpu)["architecture"] == "sm_90"
on_hopper = pytest.mark.skipif(not HOPPER, reason="MLX finds no Hopper GPU here")


@pytest.fixture(params=[None, 1, 7])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few blocks have many tiles each: the ring goes round and rows are read again and again."""
    if request.param:
        for module in ("products", "linear_float"):
            monkeypatch.setattr(f"custom_kernels.cuda.{module}.multiprocessors", lambda: request.param)


@on_hopper
@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("total", [1, 64, 65, 191, 192, 193, 1500, 20000])
@pytest.mark.parametrize(
    ("outputs", "inputs", "act", "biased", "dtype"),
    [
        (1536, 384, "gelu", True, "float16"),
        (1536, 384, "gelu", True, "bfloat16"),
        (1152, 384, None, True, "float16"),
        (384, 384, None, False, "bfloat16"),
        (1536, 384, "gelu_tanh", False, "float16"),
        (768, 256, "silu", True, "float16"),
        (96, 64, "relu", True, "float16"),
        (3072, 320, "gelu", True, "float16"),
        (3072, 768, "gelu", True, "float16"),
        (2304, 768, None, True, "bfloat16"),
        (1024, 512, "gelu", True, "float16"),
        (256, 256, None, True, "float16"),
        (4096, 1024, "gelu", True, "float16"),
        (768, 768, "gelu_tanh", False, "bfloat16"),
        (384, 2048, "relu", True, "float16"),
    ],
)
def test_linear_on_hopper(outputs: int, inputs: int, act: str | None, biased: bool, dtype: str, total: int) -> None:
    weight, bias = random_layer(outputs, inputs, dtype)
    x = random(total, inputs, dtype=dtype)
    expected = EXACT[act](exact_linear(x, weight, bias if biased else None))
    laid_out = lay_out_linear(weight, "activation" if act else None)
    assert laid_out is not None
    layer = Linear(weight, bias if biased else None, laid_out)
    for _ in range(2):
        poison(total, outputs, dtype=dtype)
        found = cuda.linear(x, layer, act)
        assert found.dtype == DTYPES[dtype]
        assert error(found, expected) <= TOLERANCE[dtype]


@on_hopper
@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("total", [1, 127, 128, 129, 1500, 20000])
@pytest.mark.parametrize(
    ("outputs", "inputs", "act", "gate", "biased", "has_residual"),
    [
        (1536, 384, "gelu", None, True, False),
        (384, 1536, None, None, True, True),
        (384, 384, None, None, False, False),
        (768, 3072, None, None, True, False),
        (96, 64, "relu", None, True, False),
        (288, 320, "silu", None, False, True),
        (64, 128, "gelu_tanh", None, True, False),
        (6144, 1024, "silu", "second", False, False),
        (2304, 768, "gelu", "first", True, False),
        (192, 64, "gelu_tanh", "first", True, False),
    ],
)
def test_linear_of_float32_on_hopper_is_as_precise_as_cublas(
    outputs: int, inputs: int, act: str | None, gate: str | None, biased: bool, has_residual: bool, total: int
) -> None:
    weight, bias = random_layer(outputs, inputs, "float32")
    layer = Linear(weight, bias if biased else None, lay_out_linear(weight))
    assert layer.laid_out is not None
    x = random(total, inputs, dtype="float32")
    residual = random(total, outputs, dtype="float32") if has_residual else None
    product = exact_linear(x, weight, layer.bias)
    expected = gated(product, act, gate) if gate else EXACT[act](product)
    expected = expected if residual is None else expected + exact(residual)
    for _ in range(2):
        poison(total, outputs, dtype="float32")
        found = cuda.gated_linear(x, layer, act, gate) if gate else cuda.linear(x, layer, act, residual)
        assert found.dtype == mx.float32
        assert error(found, expected) <= TOLERANCE["float32"] / 5
        if act is None and residual is None and total >= 1000:
            of_cublas = exact(layer.times(x)) - expected
            assert np.square(exact(found) - expected).mean() <= 1.5 * np.square(of_cublas).mean()


@on_hopper
@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38, 0.0])
def test_what_is_wrong_with_a_row_stays_in_it_on_hopper_in_float32(bad: float) -> None:
    weight, bias = random_layer(384, 384, "float32")
    x = random(500, 384, dtype="float32")
    x[200] = bad
    keep = np.arange(500) != 200
    expected = exact_linear(x, weight, bias)[keep]
    found = exact(cuda.linear(x, Linear(weight, bias, lay_out_linear(weight)), None))[keep]
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()


@on_hopper
@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("total", [1, 127, 128, 129, 257, 1500, 20000])
@pytest.mark.parametrize(
    ("outputs", "inputs", "act", "gate", "biased", "dtype"),
    [
        (6144, 1024, "silu", "second", False, "bfloat16"),
        (2304, 768, "gelu", "first", True, "float16"),
        (384, 192, "gelu_tanh", "first", False, "float16"),
        (1024, 384, "silu", "second", True, "bfloat16"),
        (256, 2048, "relu", "second", False, "float16"),
    ],
)
def test_gated_linear_on_hopper(
    outputs: int, inputs: int, act: str, gate: str, biased: bool, dtype: str, total: int
) -> None:
    weight, bias = random_layer(outputs, inputs, dtype)
    x = random(total, inputs, dtype=dtype)
    layer = Linear(weight, bias if biased else None, lay_out_linear(weight, then="activation"))
    expected = gated(exact_linear(x, weight, layer.bias), act, gate)
    assert layer.laid_out is not None
    for _ in range(2):
        poison(total, outputs // 2, dtype=dtype)
        found = cuda.gated_linear(x, layer, act, gate)
        assert found.dtype == DTYPES[dtype]
        assert error(found, expected) <= 2 * TOLERANCE[dtype]


@on_hopper
@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("total", [1, 63, 64, 65, 127, 128, 129, 1500, 20000])
@pytest.mark.parametrize(
    ("outputs", "inputs", "dtype"),
    [
        (384, 384, "float16"),
        (384, 384, "bfloat16"),
        (256, 256, "float16"),
        (384, 64, "float16"),
        (256, 320, "bfloat16"),
        (768, 768, "float16"),
        (768, 3072, "bfloat16"),
        (512, 64, "float16"),
    ],
)
@pytest.mark.parametrize("far", [0.0, 300.0])
def test_output_norm_on_hopper(far: float, outputs: int, inputs: int, dtype: str, total: int) -> None:
    weight, bias = random_layer(outputs, inputs, dtype)
    x, residual = random(total, inputs, dtype=dtype), random(total, outputs, dtype=dtype) + far
    residual = residual.astype(DTYPES[dtype])
    norm_weight, norm_bias = random(outputs, dtype=dtype), random(outputs, dtype=dtype)
    expected = normed(exact_linear(x, weight, bias) + exact(residual), norm_weight, norm_bias, 1e-5)
    laid_out = lay_out_linear(weight, "norm")
    assert laid_out is not None
    layer = Linear(weight, bias, laid_out)
    for _ in range(2):
        poison(total, outputs, dtype=dtype)
        found = cuda.output_norm(x, layer, residual, norm_weight, norm_bias, 1e-5)
        assert found.dtype == DTYPES[dtype]
        assert error(found, expected) <= TOLERANCE[dtype]


@on_hopper
@pytest.mark.parametrize("bad", [math.nan, math.inf, 6e4])
def test_what_is_wrong_with_a_row_stays_in_it_on_hopper(bad: float) -> None:
    weight, bias = random_layer(384, 384, "float16")
    x, norm = random(500, 384, dtype="float16"), random(384, dtype="float16")
    x[200] = bad
    layer = Linear(weight, bias, lay_out_linear(weight))
    assert layer.laid_out is not None
    keep = np.arange(500) != 200
    expected = EXACT["gelu"](exact_linear(x, weight, bias)[keep])
    found = exact(cuda.linear(x, layer, "gelu"))[keep]
    assert np.abs(found - expected).max() <= 4 * TOLERANCE["float16"]
    residual, offset = random(500, 384, dtype="float16"), random(384, dtype="float16")
    expected = normed(exact_linear(x, weight, bias)[keep] + exact(residual)[keep], norm, offset, 1e-5)
    found = exact(cuda.output_norm(x, layer, residual, norm, offset, 1e-5))[keep]
    assert np.abs(found - expected).max() <= 8 * TOLERANCE["float16"]


@on_hopper
def test_laid_out_layers_take_the_kernels_on_hopper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget_kernels(monkeypatch)
    weight, bias = random_layer(384, 384, "float16")
    x, residual = random(700, 384, dtype="float16"), random(700, 384, dtype="float16")
    norm_weight, norm_bias = random(384, dtype="float16"), random(384, dtype="float16")
    layer = Linear(weight, bias, lay_out_linear(weight))
    found = linear(x, layer, "gelu")
    assert error(found, EXACT["gelu"](exact_linear(x, weight, bias))) <= TOLERANCE["float16"]
    found = output_norm(x, layer, residual, norm_weight, norm_bias, 1e-5)
    expected = normed(exact_linear(x, weight, bias) + exact(residual), norm_weight, norm_bias, 1e-5)
    assert error(found, expected) <= TOLERANCE["float16"]
    assert set(op._chosen.values()) == {cuda.linear, cuda.output_norm}
