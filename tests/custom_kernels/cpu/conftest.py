"""What the tests of the native kernels share: instruction sets, thread counts and float64 references."""

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from custom_kernels import cpu
from custom_kernels.cpu import library, memory
from tests.custom_kernels.conftest import each_pair

WIDTHS = [1, 2, 7, 30, 32, 33, 100, 384, 385, 768]
erf = np.vectorize(math.erf, otypes=[float])


@pytest.fixture(params=["", "avx2", "baseline"], ids=["best", "avx2", "baseline"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    if not cpu.available():
        pytest.skip(cpu.why_unavailable())
    functions, best = library.load()
    chosen = functions.mlx_embed_choose(request.param.encode()).decode()
    if (request.param == "avx2" and chosen != "AVX2") or (request.param == "baseline" and chosen == best):
        functions.mlx_embed_choose(b"")
        pytest.skip(f"this machine has no {request.param}")
    yield chosen
    functions.mlx_embed_choose(b"")


@pytest.fixture(params=[1, 2, 3, 7])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = cpu.num_threads()
    cpu.set_num_threads(request.param)
    yield request.param
    cpu.set_num_threads(before)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs start as NaN, so that whatever an op leaves unwritten shows."""
    monkeypatch.setattr(memory, "empty", lambda shape: np.full(shape, np.nan, np.float32))


def remembered(reference: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The reference, computed once for equal arguments: every instruction set and number of threads asks for it."""
    known: dict[Any, np.ndarray] = {}

    def part(argument: Any) -> Any:
        if not isinstance(argument, np.ndarray):
            return argument
        return argument.shape, argument.dtype.str, hashlib.sha256(np.ascontiguousarray(argument)).digest()

    @functools.wraps(reference)
    def call(*arguments: Any, **options: Any) -> np.ndarray:
        key = (*map(part, arguments), *((name, part(option)) for name, option in options.items()))
        if key not in known:
            known[key] = reference(*arguments, **options)
            known[key].flags.writeable = False
        return known[key]

    return call


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def normal(generator: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * generator.standard_normal(shape)).astype(np.float32)


def starts(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def close(found: np.ndarray, wanted: np.ndarray, tolerance: float = 6e-6) -> None:
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def activate64(x: np.ndarray, name: str | None) -> np.ndarray:
    if name == "gelu":
        return x * 0.5 * (1 + erf(x / math.sqrt(2)))
    if name == "gelu_tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    if name == "relu":
        return np.maximum(x, 0)
    if name == "silu":
        return x / (1 + np.exp(-x))
    return x


def norm64(
    x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float, residual: np.ndarray | None = None
) -> np.ndarray:
    h = x.astype(np.float64) + (0 if residual is None else residual.astype(np.float64))
    if weight is None:
        return h
    h = h - h.mean(-1, keepdims=True)
    y = h / np.sqrt((h * h).mean(-1, keepdims=True) + eps) * weight
    return y if bias is None else y + bias


def linear64(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    activation: str | None = None,
    residual: np.ndarray | None = None,
) -> np.ndarray:
    y = x.astype(np.float64) @ weight.astype(np.float64).T + (0 if bias is None else bias)
    return activate64(y, activation) + (0 if residual is None else residual)


@remembered
def attention64(
    qkv: np.ndarray,
    cu: np.ndarray,
    heads: int,
    scale: float,
    bias: np.ndarray | None = None,
    window: int | None = None,
) -> np.ndarray:
    total, width = qkv.shape
    out = np.zeros((total, width // 3))
    for start, end in itertools.pairwise(cu):
        n = end - start
        if n == 0:
            continue
        q, k, v = qkv[start:end].astype(np.float64).reshape(n, 3, heads, -1).transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1) * scale
        if bias is not None:
            scores = scores + each_pair(bias, n)
        if window is not None:
            i = np.arange(n)
            scores = np.where(abs(i[:, None] - i) <= window, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out[start:end] = (weights @ v).transpose(1, 0, 2).reshape(n, -1)
    return out


def layer(qkv_x: np.ndarray, cu: np.ndarray, weights: dict[str, cpu.Linear]) -> np.ndarray:
    ones = np.ones(96, np.float32)
    qkv = cpu.linear(qkv_x, weights["qkv"])
    context = cpu.attention(qkv, cu, 3, 0.2)
    h = cpu.output_norm(context, weights["out"], qkv_x, ones, None, 1e-5)
    return cpu.feed_forward(h, weights["up"], weights["down"], "gelu", ones, None, 1e-5)


def some_weights() -> dict[str, cpu.Linear]:
    g = rng(15)
    shapes = {"qkv": (288, 96), "out": (96, 96), "up": (500, 96), "down": (96, 500)}
    return {name: cpu.Linear(normal(g, *shape, scale=0.1)) for name, shape in shapes.items()}
