"""Linear layers with an activation, or with a residual and its LayerNorm, against float64."""

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import custom_kernels.cuda
from custom_kernels import backends, gelu, linear, output_norm, pack_linear
from custom_kernels.backends import kernel_source
from custom_kernels.linear import reference_linear, reference_output_norm
from mlx_embed.architectures import ops
from mlx_embed.architectures.norm import LayerNorm
from tests.conftest import forget_kernels
from tests.test_kernels import DTYPES, TOLERANCE, error, exact, normed, poison, random

HOPPER = mx.cuda.is_available() and mx.device_info(mx.gpu)["architecture"] == "sm_90"
on_hopper = pytest.mark.skipif(not HOPPER, reason="MLX finds no Hopper GPU here")


def erf(x: np.ndarray) -> np.ndarray:
    return np.array(mx.erf(mx.array(x.astype(np.float32)), stream=mx.cpu)).astype(np.float64)


EXACT: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda x: x,
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def layer(outputs: int, inputs: int, dtype: str) -> tuple[mx.array, mx.array]:
    return random(outputs, inputs, dtype=dtype, scale=inputs**-0.5), random(outputs, dtype=dtype)


def packed_on_cuda(monkeypatch: pytest.MonkeyPatch, weight: mx.array) -> mx.array | None:
    monkeypatch.setattr(sys.modules["custom_kernels.linear"], "default_backend", lambda: "cuda")
    monkeypatch.setattr(mx, "device_info", lambda *_: {"architecture": "sm_90"})
    return pack_linear(weight)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_packed_weights_are_where_the_kernels_look(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    weight = random(96, 128, dtype=dtype)
    packed = packed_on_cuda(monkeypatch, weight)
    assert packed is not None
    assert packed.dtype == weight.dtype
    assert packed.shape == (2, 96, 64)
    found = exact(packed)
    for place in range(96):
        # A thread's sums of 32 columns are 2 of each 8, and shall be 8 neighbours.
        eight, thread, odd = place % 32 // 8, place % 8 // 2, place % 2
        row = place // 32 * 32 + thread * 8 + eight * 2 + odd
        for block in range(2):
            for chunk in range(8):
                begin = block * 64 + (chunk ^ place % 8) * 8
                expected = exact(weight)[row, begin : begin + 8]
                np.testing.assert_array_equal(found[block, place, chunk * 8 : chunk * 8 + 8], expected)


@pytest.mark.parametrize(
    ("outputs", "inputs", "dtype"),
    [(96, 64, "float32"), (96, 100, "float16"), (40, 64, "float16"), (96, 832, "float16")],
)
def test_what_no_kernel_takes_is_not_packed(
    monkeypatch: pytest.MonkeyPatch, outputs: int, inputs: int, dtype: str
) -> None:
    assert packed_on_cuda(monkeypatch, random(outputs, inputs, dtype=dtype)) is None


def test_nothing_is_packed_for_another_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random(96, 64, dtype="float16")
    assert packed_on_cuda(monkeypatch, weight) is not None
    monkeypatch.setattr(mx, "device_info", lambda *_: {"architecture": "sm_80"})
    assert pack_linear(weight) is None
    monkeypatch.setattr(sys.modules["custom_kernels.linear"], "default_backend", lambda: "metal")
    assert pack_linear(weight) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": mx.zeros((5, 64))}, "takes x"),
        ({"x": mx.zeros((2, 5, 32))}, "takes x"),
        ({"bias": mx.zeros((1,))}, "got a bias"),
        ({"packed": mx.zeros((1, 48, 64))}, "not the shape of pack_linear"),
    ],
)
def test_bad_linear_input(change: dict[str, mx.array], message: str) -> None:
    good = {"x": mx.zeros((5, 32)), "weight": mx.zeros((48, 32)), "bias": mx.zeros((48,))}
    with pytest.raises(ValueError, match=message):
        linear(**(good | change))
    norm = {"residual": mx.zeros((5, 48)), "norm_weight": mx.zeros((48,)), "norm_bias": mx.zeros((48,)), "eps": 1e-5}
    output_norm(**good, **norm)
    with pytest.raises(ValueError, match=message):
        output_norm(**(good | norm | change))
    for name, text in (
        ("residual", "residual"),
        ("norm_weight", "got a norm_weight"),
        ("norm_bias", "got a norm_bias"),
    ):
        with pytest.raises(ValueError, match=text):
            output_norm(**(good | norm | {name: mx.zeros((4, 48))}))


def test_the_quick_gelu_is_within_a_quarter_of_a_rounding() -> None:
    """The formula of activations.cu, with its coefficients, at every float16."""
    steps = re.findall(r"p = (\S+)f \+ u \* (\S+?)f?;", kernel_source("cuda", "activations"))
    assert [factor for _, factor in steps[1:]] == ["p"] * 5
    x = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    x = x[np.isfinite(x)]
    with np.errstate(over="ignore", invalid="ignore"):
        u = x * x
        p = np.float32(steps[0][1])
        for coefficient, _ in steps:
            p = np.float32(coefficient) + u * p
        found = x / (1 + np.exp2(x * p))
    wide = x.astype(np.float64)
    expected = wide * np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in wide])
    half_ulp = np.maximum(2.0 ** (np.floor(np.log2(np.maximum(np.abs(expected), 2.0**-14))) - 11), 2.0**-25)
    assert (np.abs(found - expected) / half_ulp).max() <= 0.25


def exact_linear(x: mx.array, weight: mx.array, bias: mx.array | None) -> np.ndarray:
    return exact(x) @ exact(weight).T + (0 if bias is None else exact(bias))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", EXACT)
def test_linear_of_what_is_not_packed(act: str | None, dtype: str) -> None:
    weight, bias = layer(48, 32, dtype)
    x = random(17, 32, dtype=dtype)
    # The product is rounded before the activation.
    bound = max(3 * TOLERANCE[dtype], 4e-3 if mx.cuda.is_available() else 0)
    for b in (bias, None):
        assert error(linear(x, weight, b, act), EXACT[act](exact_linear(x, weight, b))) <= bound
    assert linear(x[:0], weight, bias, act).shape == (0, 48)


@pytest.mark.parametrize("dtype", DTYPES)
def test_output_norm_of_what_is_not_packed(dtype: str) -> None:
    weight, bias = layer(48, 32, dtype)
    x, residual = random(17, 32, dtype=dtype), random(17, 48, dtype=dtype)
    norm_weight, norm_bias = random(48, dtype=dtype), random(48, dtype=dtype)
    found = output_norm(x, weight, bias, residual, norm_weight, norm_bias, 1e-5)
    expected = normed(exact_linear(x, weight, bias) + exact(residual), norm_weight, norm_bias, 1e-5)
    assert error(found, expected) <= max(3 * TOLERANCE[dtype], 4e-3 if mx.cuda.is_available() else 0)
    assert output_norm(x[:0], weight, bias, residual[:0], norm_weight, norm_bias, 1e-5).shape == (0, 48)


@pytest.fixture(params=[None, 1, 7])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few blocks have many tiles each: the ring goes round and rows are read again and again."""
    if request.param:
        monkeypatch.setattr(custom_kernels.cuda, "multiprocessors", lambda: request.param)


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
    ],
)
def test_linear_on_hopper(outputs: int, inputs: int, act: str | None, biased: bool, dtype: str, total: int) -> None:
    weight, bias = layer(outputs, inputs, dtype)
    x = random(total, inputs, dtype=dtype)
    expected = EXACT[act](exact_linear(x, weight, bias if biased else None))
    packed = pack_linear(weight)
    assert packed is not None
    for _ in range(2):
        poison(total, outputs, dtype=dtype)
        found = custom_kernels.cuda.linear(x, weight, bias if biased else None, act, packed)
        assert found.dtype == DTYPES[dtype]
        assert error(found, expected) <= TOLERANCE[dtype]


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
    ],
)
@pytest.mark.parametrize("far", [0.0, 300.0])
def test_output_norm_on_hopper(far: float, outputs: int, inputs: int, dtype: str, total: int) -> None:
    weight, bias = layer(outputs, inputs, dtype)
    x, residual = random(total, inputs, dtype=dtype), random(total, outputs, dtype=dtype) + far
    residual = residual.astype(DTYPES[dtype])
    norm_weight, norm_bias = random(outputs, dtype=dtype), random(outputs, dtype=dtype)
    expected = normed(exact_linear(x, weight, bias) + exact(residual), norm_weight, norm_bias, 1e-5)
    packed = pack_linear(weight)
    assert packed is not None
    for _ in range(2):
        poison(total, outputs, dtype=dtype)
        found = custom_kernels.cuda.output_norm(x, weight, bias, residual, norm_weight, norm_bias, 1e-5, packed)
        assert found.dtype == DTYPES[dtype]
        assert error(found, expected) <= TOLERANCE[dtype]


@pytest.mark.skipif(not mx.cuda.is_available(), reason="MLX finds no CUDA device here")
def test_gelu_of_every_float16_on_cuda() -> None:
    x = np.arange(2**16, dtype=np.uint16).view(np.float16)
    x = x[np.isfinite(x)]
    found = exact(custom_kernels.cuda.activate(mx.array(x[None]), "gelu"))[0]
    expected = x.astype(np.float64) * np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64)])
    expected = expected.astype(np.float16).astype(np.float64)
    ulp = np.maximum(2.0 ** (np.floor(np.log2(np.maximum(np.abs(expected), 2.0**-14))) - 10), 2.0**-24)
    assert (np.abs(found - expected) / ulp).max() <= 1


@on_hopper
@pytest.mark.parametrize("bad", [math.nan, math.inf, 6e4])
def test_what_is_wrong_with_a_row_stays_in_it_on_hopper(bad: float) -> None:
    weight, bias = layer(384, 384, "float16")
    x, norm = random(500, 384, dtype="float16"), random(384, dtype="float16")
    x[200] = bad
    packed = pack_linear(weight)
    assert packed is not None
    keep = np.arange(500) != 200
    expected = EXACT["gelu"](exact_linear(x, weight, bias)[keep])
    found = exact(custom_kernels.cuda.linear(x, weight, bias, "gelu", packed))[keep]
    assert np.abs(found - expected).max() <= 4 * TOLERANCE["float16"]
    residual, offset = random(500, 384, dtype="float16"), random(384, dtype="float16")
    expected = normed(exact_linear(x, weight, bias)[keep] + exact(residual)[keep], norm, offset, 1e-5)
    found = exact(custom_kernels.cuda.output_norm(x, weight, bias, residual, norm, offset, 1e-5, packed))[keep]
    assert np.abs(found - expected).max() <= 8 * TOLERANCE["float16"]


@on_hopper
def test_packed_layers_take_the_kernels_on_hopper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget_kernels(monkeypatch)
    weight, bias = layer(384, 384, "float16")
    x, residual = random(700, 384, dtype="float16"), random(700, 384, dtype="float16")
    norm_weight, norm_bias = random(384, dtype="float16"), random(384, dtype="float16")
    packed = pack_linear(weight)
    found = linear(x, weight, bias, "gelu", packed)
    assert error(found, EXACT["gelu"](exact_linear(x, weight, bias))) <= TOLERANCE["float16"]
    found = output_norm(x, weight, bias, residual, norm_weight, norm_bias, 1e-5, packed)
    expected = normed(exact_linear(x, weight, bias) + exact(residual), norm_weight, norm_bias, 1e-5)
    assert error(found, expected) <= TOLERANCE["float16"]
    assert set(backends._chosen.values()) == {custom_kernels.cuda.linear, custom_kernels.cuda.output_norm}


class Spy:
    """Stands in for this package's functions: what ops hands them, and what they compute."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.packed: list[mx.array | None] = []
        monkeypatch.setattr(custom_kernels, "linear", self.linear)
        monkeypatch.setattr(custom_kernels, "output_norm", self.output_norm)
        monkeypatch.setattr(custom_kernels, "pack_linear", lambda weight: weight * 2)

    def linear(self, *arguments: Any) -> mx.array:
        self.packed.append(arguments[4])
        return reference_linear(*arguments)

    def output_norm(self, *arguments: Any) -> mx.array:
        self.packed.append(arguments[7])
        return reference_output_norm(*arguments)


def test_encoders_hand_packed_weights_to_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    first, second, norm = nn.Linear(32, 48), nn.Linear(48, 32), LayerNorm(32, 1e-5)
    first.bias, second.bias, norm.weight, norm.bias = random(48), random(32), random(32), random(32)
    encoder = nn.Sequential(first, second)
    x, residual = random(7, 32), random(7, 32)
    hidden = ops.linear(x, first, "gelu")
    expected = ops.output_norm(hidden, second, residual, norm)
    assert np.allclose(np.array(hidden), np.array(gelu(first(x))), atol=1e-5)
    assert np.allclose(np.array(expected), np.array(norm(second(hidden), residual=residual)), atol=1e-5)
    assert spy.packed == [None, None]

    ops.lay_out(encoder)
    names = [name for name, _ in tree_flatten(encoder.parameters())]
    assert all("packed" not in name for name in names)
    assert np.allclose(
        np.array(ops.output_norm(ops.linear(x, first, "gelu"), second, residual, norm)), np.array(expected)
    )
    for packed, layer in zip(spy.packed[2:], (first, second), strict=True):
        np.testing.assert_array_equal(np.array(packed), np.array(layer.weight) * 2)
    spy.packed.clear()
    second.weight = second.weight + 1  # what was laid out is of another weight now
    found = ops.output_norm(hidden, second, residual, norm)
    assert np.allclose(np.array(found), np.array(norm(second(hidden), residual=residual)), atol=1e-5)
    assert spy.packed == [None]
