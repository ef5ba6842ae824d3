"""The native products by a BLAS, through OpenBLAS's cblas_sgemm in the place of Accelerate's."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from custom_kernels import accelerate, cpu
from custom_kernels.choice import tune
from tests.custom_kernels.cpu.conftest import close, linear64, norm64, normal, rng, starts

openblas: Any = pytest.importorskip("scipy_openblas32")

pytestmark = pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")


@pytest.fixture
def sgemm() -> Iterator[Any]:
    found = sorted(Path(openblas.__path__[0], "lib").glob("libscipy_openblas*.so"))
    if not found:
        pytest.skip("there is no OpenBLAS")
    yield ctypes.CDLL(str(found[0])).scipy_cblas_sgemm
    cpu.multiply_by(None)
    accelerate.decide.cache_clear()


@pytest.mark.parametrize("rows", [0, 1, 5, 300])
@pytest.mark.parametrize(("out_features", "width"), [(1, 1), (100, 37), (96, 385)])
def test_products_by_a_blas(rows: int, out_features: int, width: int, sgemm: Any) -> None:
    g = rng(rows, out_features, width)
    weight, bias = normal(g, out_features, width, scale=width**-0.5), normal(g, out_features)
    x, residual = normal(g, rows, width), normal(g, rows, out_features)
    before = cpu.Linear(weight, bias)
    wanted = cpu.linear(x, before, "gelu", residual)
    cpu.multiply_by(sgemm)
    assert cpu.product("float32") == "cblas_sgemm"
    layer = cpu.Linear(weight, bias)
    close(cpu.linear(x, layer, "gelu", residual), linear64(x, weight, bias, "gelu", residual), 2e-5)
    assert np.array_equal(cpu.linear(x, before, "gelu", residual), wanted), "a layer that was there stays as it is"
    cpu.multiply_by(None)
    close(cpu.linear(x, layer), linear64(x, weight, bias), 2e-5)


def test_what_is_made_of_products(sgemm: Any) -> None:
    g = rng(1)
    cpu.multiply_by(sgemm)
    weights = normal(g, 200, 64, scale=0.1), normal(g, 64, 200, scale=0.1)
    up, down, ones = cpu.Linear(weights[0]), cpu.Linear(weights[1]), np.ones(64, np.float32)
    cu = starts([3, 0, 130, 40])
    x = normal(g, cu[-1], 64)
    inner = linear64(x, weights[0], None, "gelu")
    wanted = norm64(inner @ weights[1].T.astype(np.float64), ones, None, 1e-5, residual=x)
    close(cpu.feed_forward(x, up, down, "gelu", ones, None, 1e-5), wanted, 3e-5)
    most = np.stack([part.max(0, initial=-np.inf) for part in np.split(linear64(x, weights[0], None), cu[1:-1])])
    close(cpu.linear_max(x, up, cu), most, 3e-5)


@pytest.mark.parametrize(("kernels", "blas"), [(1.0, 0.5), (0.5, 1.0)])
def test_what_was_faster_is_remembered(kernels: float, blas: float, sgemm: Any, tmp_path: Path) -> None:
    file, here = tmp_path / "kernels.json", cpu.product("float32")
    shape_class = f"float32 1536x384, {cpu.num_threads()} threads"
    tune.remember("native products", shape_class, {"kernels": kernels, "sgemm": blas}, file)

    def clock() -> float:
        raise AssertionError("nothing is timed again")

    assert accelerate.is_faster(sgemm, file, clock) == (blas < kernels)
    assert cpu.product("float32") == here


def test_both_are_timed_once(sgemm: Any, tmp_path: Path) -> None:
    file = tmp_path / "kernels.json"
    told = iter(range(100))
    first = accelerate.is_faster(sgemm, file, lambda: next(told))
    assert next(told) > 4
    assert accelerate.is_faster(sgemm, file, lambda: next(told)) == first
    assert next(told) < 20


@pytest.mark.parametrize(
    ("platform", "limit", "faster", "library", "goes"),
    [
        ("darwin", "", True, True, True),
        ("darwin", "", False, True, False),
        ("darwin", "", True, False, False),
        ("darwin", "baseline", True, True, False),
        ("linux", "", True, True, False),
    ],
)
def test_when_products_go_to_accelerate(
    platform: str, limit: str, faster: bool, library: bool, goes: bool, sgemm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cpu.product("float32")
    found = SimpleNamespace(cblas_sgemm=sgemm) if library else SimpleNamespace()
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("MLX_EMBED_CPU_ISA", limit)
    monkeypatch.setattr(accelerate, "ctypes", SimpleNamespace(CDLL=lambda path: found))
    monkeypatch.setattr(accelerate, "is_faster", lambda function: faster)
    accelerate.decide.cache_clear()
    accelerate.decide()
    assert cpu.product("float32") == ("cblas_sgemm" if goes else here)
