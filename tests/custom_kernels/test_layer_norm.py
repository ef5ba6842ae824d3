"""custom_kernels.layer_norm against float64, on every back end that this machine has."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import layer_norm
from custom_kernels.backends import KERNEL_BACKENDS
from custom_kernels.choice.op import Kernel, Op
from custom_kernels.cuda import heuristics
from custom_kernels.ops.layer_norm import fast_layer_norm
from mlx_embed.engine.device import accelerator

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
# Half a unit in the last place of values up to 8, and some float32 rounding.
TOLERANCE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3.2e-2}
WIDTHS = [
    1,
    2,
    3,
    7,
    31,
    32,
    33,
    63,
    100,
    127,
    384,
    385,
    768,
    1000,
    1024,
    1025,
    1536,
    2047,
    2048,
    2049,
    4096,
    5003,
    8192,
]
EPS = 1e-12


def backends() -> list:
    present = {"reference": True, "fast": True, "metal": mx.metal.is_available(), "cuda": mx.cuda.is_available()}
    return [
        pytest.param(name, marks=pytest.mark.skipif(not here, reason=f"MLX finds no {name} device here"))
        for name, here in present.items()
    ]


def inputs(shape: tuple[int, ...], dtype: str, offset: float, scale: float = 1.0) -> list[mx.array]:
    """x, weight, bias and residual, fresh and random."""
    rng = np.random.default_rng()
    x, residual = rng.normal(offset, scale, size=(2, *shape)).astype(np.float32)
    weight, bias = rng.normal(size=(2, shape[-1])).astype(np.float32)
    return [mx.array(a).astype(DTYPES[dtype]) for a in (x, weight, bias, residual)]


def exact(x: mx.array, weight: mx.array, bias: mx.array | None, residual: mx.array | None) -> np.ndarray:
    h, w = (np.array(a.astype(mx.float32)).astype(np.float64) for a in (x, weight))
    if residual is not None:
        h = h + np.array(residual.astype(mx.float32))
    h = h - h.mean(axis=-1, keepdims=True)
    y = h / np.sqrt(np.square(h).mean(axis=-1, keepdims=True) + EPS) * w
    return y if bias is None else y + np.array(bias.astype(mx.float32))


def error(found: mx.array, expected: np.ndarray) -> float:
    """The largest difference, relative where values are above 1; NaN where any is."""
    values = np.array(found.astype(mx.float32)).astype(np.float64)
    return float((np.abs(values - expected) / np.maximum(np.abs(expected), 1)).max())


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("backend", backends())
def test_every_width(backend: str, width: int, dtype: str, with_residual: bool) -> None:
    if backend == "fast" and dtype != "float32":
        pytest.skip("the built-in rounds x + residual and the affine step to x's dtype: covered in float32")
    x, weight, bias, residual = inputs((5, width), dtype, offset=0.0)
    if width == 1:
        x = mx.zeros_like(x)  # one value is its own mean: anything but 0 / sqrt(eps) must not be amplified
        residual = mx.zeros_like(residual)
    residual = residual if with_residual else None
    found = layer_norm(x, weight, bias, EPS, residual, backend=backend)
    assert found.dtype == DTYPES[dtype]
    assert found.shape == x.shape
    limit = TOLERANCE[dtype] if width > 2 else 1e-2  # two near values divide by their own rounding
    assert error(found, exact(x, weight, bias, residual)) <= limit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 384), (1, 384), (2, 5, 768), (2, 3, 4, 33), (257, 64), (7,)])
@pytest.mark.parametrize("backend", backends())
def test_every_leading_shape(backend: str, shape: tuple[int, ...], dtype: str) -> None:
    x, weight, bias, _ = inputs(shape, dtype, offset=0.0)
    found = layer_norm(x, weight, bias, EPS, backend=backend)
    assert found.shape == shape
    assert error(found, exact(x, weight, bias, None)) <= TOLERANCE[dtype] * (2 if backend == "fast" else 1)


@pytest.mark.parametrize("width", [384, 768, 8192])
@pytest.mark.parametrize("offset", [1e4, -1e4])
@pytest.mark.parametrize("backend", [b for b in backends() if b.values != ("fast",)])
def test_a_mean_far_from_zero(backend: str, offset: float, width: int) -> None:
    """E[x^2] - mean^2 would lose everything here; so would a first mean taken for exact."""
    x, weight, bias, residual = inputs((4, width), "float32", offset=offset)
    found = layer_norm(x, weight, bias, EPS, residual, backend=backend)
    # x + residual rounds at 2e4, to 2^-10: the reference adds them in float32 too.
    added = x + residual
    assert error(found, exact(added, weight, bias, None)) <= 2e-5


@pytest.mark.parametrize("backend", backends())
def test_extreme_scales(backend: str) -> None:
    for scale in (1e-4, 1e4):
        x, weight, bias, _ = inputs((4, 384), "float32", offset=0.0, scale=scale)
        assert error(layer_norm(x, weight, bias, EPS, backend=backend), exact(x, weight, bias, None)) <= 1e-4
    constant = mx.full((2, 384), 3.0)
    assert error(layer_norm(constant, weight, bias, EPS, backend=backend), np.tile(np.array(bias), (2, 1))) <= 1e-6


@pytest.mark.parametrize("backend", backends())
def test_a_nan_stays_in_its_row(backend: str) -> None:
    x, weight, bias, _ = inputs((9, 100), "float32", offset=0.0)
    x[4, 99] = mx.nan
    found = np.array(layer_norm(x, weight, bias, EPS, backend=backend))
    assert np.isnan(found[4]).all()
    assert np.isfinite(np.delete(found, 4, axis=0)).all()


@pytest.mark.parametrize("backend", backends())
def test_every_element_is_written(backend: str) -> None:
    """Freed NaN buffers of the same size are what the allocator hands out for the result."""
    x, weight, bias, _ = inputs((33, 385), "float32", offset=0.0)
    expected = exact(x, weight, bias, None)
    mx.eval(x, weight, bias)
    for _ in range(3):
        poison = [mx.full((33, 385), mx.nan) for _ in range(4)]
        mx.eval(poison)
        del poison
        assert error(layer_norm(x, weight, bias, EPS, backend=backend), expected) <= TOLERANCE["float32"]


@pytest.mark.parametrize("backend", backends())
def test_views_and_offsets(backend: str) -> None:
    """Transposed, strided, and a contiguous slice whose address is not that of a whole vector."""
    rng = np.random.default_rng()
    base = mx.array(rng.normal(size=4 * 384 + 3).astype(np.float32)).astype(mx.float16)
    _, weight, bias, _ = inputs((1, 384), "float16", offset=0.0)
    for x in (base[3:].reshape(4, 384), base[: 4 * 384].reshape(384, 4).T, base[: 4 * 384].reshape(2, 2, 384)[:, ::2]):
        limit = TOLERANCE["float16"] * 2
        assert error(layer_norm(x, weight, bias, EPS, backend=backend), exact(x, weight, bias, None)) <= limit


@pytest.mark.parametrize("backend", backends())
def test_mixed_parameter_dtypes_and_no_bias(backend: str) -> None:
    x, _, _, _ = inputs((3, 64), "float16", offset=0.0)
    _, weight, _, _ = inputs((3, 64), "float32", offset=0.0)
    found = layer_norm(x, weight, None, EPS, backend=backend)
    assert found.dtype == mx.float16
    assert error(found, exact(x, weight, None, None)) <= TOLERANCE["float16"] * 2


@pytest.mark.parametrize("backend", backends())
def test_no_rows(backend: str) -> None:
    found = layer_norm(mx.zeros((0, 8)), mx.ones((8,)), mx.zeros((8,)), EPS, backend=backend)
    mx.eval(found)
    assert found.shape == (0, 8)


@pytest.mark.parametrize("backend", backends())
def test_inside_compile(backend: str) -> None:
    x, weight, bias, residual = inputs((6, 384), "float32", offset=0.0)
    compiled = mx.compile(lambda a, r: layer_norm(a * 2, weight, bias, EPS, r, backend=backend) + 1)
    assert error(compiled(x, residual), exact(x * 2, weight, bias, residual) + 1) <= TOLERANCE["float32"]


def test_the_default_falls_back_where_there_is_no_kernel() -> None:
    x, weight, bias, _ = inputs((2, 8193), "float32", offset=0.0)
    assert error(layer_norm(x, weight, bias, EPS), exact(x, weight, bias, None)) <= TOLERANCE["float32"]
    with mx.stream(mx.cpu):
        mx.eval(layer_norm(x, weight, bias, EPS))


@pytest.mark.parametrize("backend", [name for name in KERNEL_BACKENDS if name != accelerator()])
def test_an_absent_backend_is_a_clear_error(backend: str) -> None:
    with pytest.raises(RuntimeError, match=f"no {backend} back end here"):
        layer_norm(mx.zeros((2, 8)), mx.ones((8,)), mx.zeros((8,)), EPS, backend=backend)


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows_on_cuda_go_to_mlx_at_once(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    monkeypatch.setattr("custom_kernels.ops.layer_norm._check", None)
    x, weight, bias, _ = inputs((5, 384), dtype, offset=1.0)
    for offset in (bias, None):
        found = layer_norm(x, weight, offset, EPS)
        assert found.dtype == x.dtype
        assert error(found, exact(x, weight, offset, None)) <= TOLERANCE[dtype] * 2


def test_mixed_dtypes_on_cuda_do_not_go_to_mlx_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    x, weight, bias, _ = inputs((3, 64), "float16", offset=0.0)
    wide = weight.astype(mx.float32), bias.astype(mx.float32)
    assert layer_norm(x, wide[0], None, EPS).dtype == layer_norm(x, weight, wide[1], EPS).dtype == mx.float16


def test_many_rows_on_cuda_go_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    monkeypatch.setattr(heuristics, "PLAIN_NORM_SIZE", 100)
    monkeypatch.setattr(heuristics, "PLAIN_NORM_SIZE_IN_GRAPH", 50)
    asked: list[int] = []

    def pick(backend: str | None, variant: object, load: object) -> Kernel:
        asked.append(rows)
        return fast_layer_norm

    monkeypatch.setattr(Op, "pick", lambda op, *arguments: pick(*arguments))
    for in_graph in (False, True):
        for rows in (4, 5, 9, 10):
            layer_norm(mx.zeros((rows, 10)), mx.ones(10), mx.zeros(10), EPS, in_graph=in_graph)
    assert asked == [10, 5, 9, 10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": mx.array(1.0)}, "last axis"),
        ({"x": mx.zeros((2, 0))}, "last axis"),
        ({"x": mx.zeros((2, 8), dtype=mx.int32)}, "x is"),
        ({"weight": mx.ones((7,))}, "weight of shape"),
        ({"bias": mx.ones((1, 8))}, "bias of shape"),
        ({"residual": mx.zeros((8,))}, "residual like x"),
        ({"residual": mx.zeros((2, 8), dtype=mx.float16)}, "residual like x"),
        ({"backend": "vulkan"}, "no backend 'vulkan'"),
        ({"backend": "cuda", "x": mx.zeros((1, 8193)), "weight": mx.ones((8193,)), "bias": None}, "up to 8192"),
    ],
)
@pytest.mark.parametrize("on_cuda", [False, True], ids=["here", "as on CUDA"])
def test_bad_input(change: dict, message: str, on_cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_cuda:  # where MLX's op checks shapes first
        monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    arguments = {"x": mx.zeros((2, 8)), "weight": mx.ones((8,)), "bias": mx.zeros((8,)), "eps": EPS} | change
    with pytest.raises((ValueError, TypeError), match=message):
        layer_norm(**arguments)
