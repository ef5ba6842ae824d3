"""A kernel is checked before it is trusted.

A back end is played by functions put in the place of the CUDA launches, so that this runs anywhere.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import (
    activate,
    attention,
    embedding_norm,
    layer_norm,
    mean_pool,
    position_ids,
    rope,
    transfer,
    use_kernels,
)
from custom_kernels.backends import default_backend
from custom_kernels.choice import op
from custom_kernels.cuda import launch
from custom_kernels.cuda.ahead import rehearsal
from custom_kernels.ops.layer_norm import LAYER_NORM
from custom_kernels.ops.linear import LINEAR, Variant, reference_linear
from custom_kernels.ops.output_norm import OUTPUT_NORM
from custom_kernels.ops.output_norm import Variant as NormVariant
from tests.custom_kernels.choice.conftest import play
from tests.custom_kernels.conftest import DTYPES, error, exact, forget_kernels, random, starts


def normal(x: mx.array) -> mx.array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * mx.rsqrt(mx.square(centred).mean(axis=-1, keepdims=True) + 1e-5)


def use_often(compiled: bool) -> None:
    """Three times in float32, then in float16; every result must be right."""
    x, ones = random(6, 32), mx.ones((32,))

    def norm(x: mx.array) -> mx.array:
        return layer_norm(x, ones, None, 1e-5, mx.zeros_like(x))

    used = mx.compile(norm) if compiled else norm
    for _ in range(3):
        assert error(used(x), exact(normal(x))) <= 1e-5
    assert error(used(x.astype(mx.float16)), exact(normal(x))) <= 1e-2


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.usefixtures("unchecked")
def test_a_right_kernel_is_checked_once_a_variant(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    def sample(variant: Any, load: None) -> Any:
        return (random(5, variant.width).astype(variant.x), mx.ones((variant.width,)), None, variant.eps, None), {}

    # A kernel that ignores the weights is right where they are 1.
    monkeypatch.setattr("custom_kernels.ops.layer_norm.LAYER_NORM", replace(LAYER_NORM, sample=sample))
    calls = play(monkeypatch, normal)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use_often(compiled)
    assert calls.count((5, 32)) == 2, "one check for each dtype"
    assert calls.count((6, 32)) == (2 if compiled else 4)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("broken", ["wrong", "nan", "shape", "raises"])
@pytest.mark.usefixtures("unchecked")
def test_a_broken_kernel_is_switched_off(monkeypatch: pytest.MonkeyPatch, broken: str, compiled: bool) -> None:
    def kernel(x: mx.array) -> mx.array:
        if broken == "raises":
            raise RuntimeError("no such instruction")
        return {"wrong": x * 1.1, "nan": x * mx.nan, "shape": x[:1]}[broken]

    calls = play(monkeypatch, kernel)
    with pytest.warns(RuntimeWarning, match="cuda kernel of layer_norm is switched off") as caught:
        use_often(compiled)
    assert len(caught) == 1
    assert len(calls) == 1


@pytest.mark.usefixtures("unchecked")
def test_a_kernel_that_was_not_promised_is_left_out_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(x: mx.array) -> mx.array:
        raise NotImplementedError

    calls = play(monkeypatch, kernel)
    x, ones = random(6, 32), mx.ones((32,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert error(layer_norm(x, ones, None, 1e-5, mx.zeros_like(x)), exact(normal(x))) <= 1e-5
    assert len(calls) == 1


@pytest.mark.usefixtures("unchecked")
def test_kernels_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = play(monkeypatch, lambda x: x)
    x, ones = random(6, 32), mx.ones((32,))
    monkeypatch.setenv("MLX_EMBED_KERNELS", "reference")
    assert error(layer_norm(x, ones, None, 1e-5, mx.zeros_like(x)), exact(normal(x))) <= 1e-5
    monkeypatch.delenv("MLX_EMBED_KERNELS")
    with use_kernels(False):
        assert error(layer_norm(x, ones, None, 1e-5, mx.zeros_like(x)), exact(normal(x))) <= 1e-5
    assert not calls
    with pytest.warns(RuntimeWarning, match="switched off"):
        layer_norm(x, ones, None, 1e-5, x)
    assert calls


@pytest.mark.skipif(not mx.cuda.is_available(), reason="MLX finds no cuda device here")
@pytest.mark.parametrize(
    "source",
    ["this is no C++;", 'extern "C" __global__ void layer_norm(const void* x, const void*, void* out) {}', ""],
)
@pytest.mark.usefixtures("unchecked")
def test_a_broken_source_is_switched_off(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(launch, "source", lambda *_: source)
    monkeypatch.setattr(launch, "_codes", {})
    with pytest.warns(RuntimeWarning, match="cuda kernel of layer_norm is switched off"):
        use_often(compiled=False)


@pytest.mark.skipif(default_backend() is None, reason="MLX finds no Metal or CUDA device here")
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_shipped_kernel_passes_its_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget_kernels(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x, w = random(6, 384, dtype=dtype), random(384, dtype=dtype)
        layer_norm(x, w, w, 1e-12, x)
        embedding_norm([(x, mx.array([1, 2]))], w, w, 1e-12)
        mean_pool(x, starts([6]), 0, True)
        attention(x, starts([6]), 4, 0.2, max_seqlen=6)
        activate(x, "gelu")
        position_ids(starts([6]), 6)
        rope(x, mx.zeros((6,), dtype=mx.int32), mx.ones((3, 16)), mx.ones((3, 16)), 4)
        np.testing.assert_array_equal(transfer.to_host(mx.ones((3,)))(), np.ones(3))


@pytest.mark.usefixtures("unchecked")
def test_in_a_rehearsal_nothing_is_checked_or_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    x, ones = random(6, 32), mx.ones((32,))
    play(monkeypatch, lambda x: x * 1.1)
    with rehearsal():
        assert error(layer_norm(x, ones, None, 1e-5, mx.zeros_like(x)), exact(x * 1.1)) <= 1e-6
    assert not op._chosen
    assert not op._trusted

    def none(x: mx.array) -> mx.array:
        raise NotImplementedError

    play(monkeypatch, none)
    with rehearsal():
        assert error(layer_norm(x, ones, None, 1e-5, mx.zeros_like(x)), exact(normal(x))) <= 1e-5


@pytest.mark.usefixtures("unchecked")
def test_while_kernels_are_being_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA: an op that can do without its own for so long does, and remembers nothing of it."""
    monkeypatch.setattr(op, "default_backend", lambda: "cuda")
    under_way = [True]
    monkeypatch.setattr(op, "under_way", lambda: under_way[0])
    monkeypatch.setattr(op.Op, "_passes", lambda *_: True)
    ran: list[str] = []

    def way(name: str) -> op.Kernel:
        def run(x: mx.array) -> mx.array:
            ran.append(name)
            return x

        return run

    builtins = {"built-in": way("built-in")}
    kernels = {"cuda": way("kernel")}
    ops = [
        op.Op("some", kernels, way("reference"), lambda _: builtins, lambda *_: ((), {}), lambda _: (), None, meanwhile)
        for meanwhile in (True, False)
    ]

    def names() -> list[str]:
        ran.clear()
        for one in ops:
            one.pick(None, one.meanwhile, op.Load.of(1))(mx.zeros((1,)))
        return list(ran)

    assert names() == ["built-in", "kernel"]
    with rehearsal():
        assert names() == ["built-in", "kernel", "kernel"], "what both take is compiled"
    under_way[0] = False
    assert names() == ["kernel", "kernel"]


@pytest.mark.parametrize("wrong", [None, 0, 125, 3000, -2])
@pytest.mark.parametrize("act", [None, "gelu"])
def test_a_product_is_checked_by_rows(wrong: int | None, act: str | None) -> None:
    def kernel(x: mx.array, layer: Any, act: str | None, residual: None) -> mx.array:
        y = reference_linear(x, layer, act)
        if wrong is not None:
            y[wrong, 7] += 9
        return y

    assert (LINEAR._fault(kernel, Variant(mx.float16, 64, 32, act, True)) is None) == (wrong is None)


@pytest.mark.parametrize("wrong", [None, 20000, -2])
def test_a_product_and_its_norm_are_checked_by_rows(wrong: int | None) -> None:
    def kernel(*arguments: Any) -> mx.array:
        y = OUTPUT_NORM.reference(*arguments)
        if wrong is not None:
            y[wrong, 7] += 9
        return y

    fault = OUTPUT_NORM._fault(kernel, NormVariant(mx.float16, 32, 32, 1e-5))
    assert (fault is None) == (wrong is None)
