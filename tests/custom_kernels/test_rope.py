"""rope against the formula, pair by pair, on MLX and numpy arrays."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import attention, cpu, rope
from custom_kernels.parameters import HeadNorms
from custom_kernels.twins import as_native
from tests.custom_kernels.conftest import (
    DTYPES,
    TOLERANCE,
    error,
    exact,
    head_norms,
    present,
    random,
    rotated,
    rotation,
    starts,
)

HEADS, HEAD_DIM, POSITIONS = 3, 8, 50

no_native = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built")
twins = pytest.mark.parametrize(
    ("op", "array"), [(rope, mx.array), pytest.param(cpu.rope, np.array, marks=no_native)], ids=["mlx", "numpy"]
)


def tables() -> tuple[np.ndarray, np.ndarray]:
    angles = np.outer(np.arange(POSITIONS), 100.0 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)).astype(np.float32)
    return np.cos(angles), np.sin(angles)


def expected(qkv: np.ndarray, positions: np.ndarray) -> np.ndarray:
    out = qkv.astype(np.float64).reshape(len(qkv), 3, HEADS, HEAD_DIM)
    for row, position in enumerate(positions):
        for pair in range(HEAD_DIM // 2):
            angle = position * 100.0 ** (-2 * pair / HEAD_DIM)
            turn = np.exp(1j * angle)
            turned = (out[row, :2, :, pair] + 1j * out[row, :2, :, pair + HEAD_DIM // 2]) * turn
            out[row, :2, :, pair], out[row, :2, :, pair + HEAD_DIM // 2] = turned.real, turned.imag
    return out.reshape(qkv.shape)


@twins
@pytest.mark.parametrize("total", [1, 7, 64])
def test_rope(op: Callable, array: Callable, total: int) -> None:
    rng = np.random.default_rng()
    qkv = rng.normal(size=(total, 3 * HEADS * HEAD_DIM)).astype(np.float32)
    positions = rng.integers(POSITIONS, size=total).astype(np.int32)
    found = op(array(qkv), array(positions), *map(array, tables()), HEADS)
    assert isinstance(found, type(array(qkv)))
    assert np.abs(np.array(found) - expected(qkv, positions)).max() <= 1e-5


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("total", [0, 1, 7, 300])
@pytest.mark.parametrize("backend", present("rope"))
def test_rope_by_back_end(backend: str, total: int, dtype: mx.Dtype) -> None:
    rng = np.random.default_rng()
    qkv = mx.array(rng.normal(size=(total, 3 * HEADS * HEAD_DIM)).astype(np.float32)).astype(dtype)
    positions = rng.integers(POSITIONS, size=total).astype(np.int32)
    found = rope(qkv, mx.array(positions), *map(mx.array, tables()), HEADS, backend=backend)
    assert found.dtype == dtype
    assert error(found, expected(exact(qkv), positions)) <= TOLERANCE[str(dtype).removeprefix("mlx.core.")]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 2, 128), (3, 1, 6), (2, 2, 66)])
@pytest.mark.parametrize("backend", [*present("rope"), "native"])
def test_fewer_heads_and_norms(backend: str, heads: int, kv_heads: int, dim: int, dtype: str) -> None:
    lengths = [5, 9]
    qkv = random(14, (heads + 2 * kv_heads) * dim, dtype=dtype)
    turn = rotation(lengths, dim, head_norms(dim, dtype, 1.0))
    wanted = rotated(qkv, turn, heads, kv_heads)
    arguments = (qkv, *turn[:3], heads, kv_heads, turn.norms)
    if backend == "native":
        if dtype != "float32" or not cpu.available():
            pytest.skip("natively in float32")
        assert np.abs(cpu.rope(*as_native(arguments)) - wanted).max() <= 2e-5
    else:
        found = rope(*arguments, backend=backend)
        assert found.dtype == DTYPES[dtype]
        assert error(found, wanted) <= TOLERANCE[dtype]


def test_norms_that_do_not_fit() -> None:
    turn, norms = rotation([3], 8), head_norms(7, "float32")
    with pytest.raises(ValueError, match=r"norms \[8\]"):
        rope(mx.zeros((3, 72)), *turn[:3], HEADS, None, norms)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qkv": mx.zeros((3, 72), dtype=mx.int32)}, "qkv of float32"),
        ({"positions": mx.zeros((3,))}, "int32 positions"),
        ({"cos": mx.zeros((50, 4), dtype=mx.float16)}, "float32 tables"),
    ],
)
def test_dtypes_that_do_not_fit(change: dict[str, mx.array], message: str) -> None:
    arguments = {"qkv": mx.zeros((3, 72)), "positions": mx.zeros((3,), dtype=mx.int32)}
    tables = {"cos": mx.zeros((50, 4)), "sin": mx.zeros((50, 4))}
    with pytest.raises(TypeError, match=message):
        rope(**(arguments | tables | change), num_heads=HEADS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qkv": mx.zeros((3, 3, 24))}, "needs qkv"),
        ({"cos": mx.zeros((4,)), "sin": mx.zeros((4,))}, "tables"),
        ({"cos": mx.array(1.0), "sin": mx.array(1.0)}, "tables"),
        ({"cos": mx.zeros((1, 50, 4)), "sin": mx.zeros((1, 50, 4))}, "tables"),
        ({"positions": mx.zeros((3, 1), dtype=mx.int32)}, "positions"),
        ({"num_heads": 0}, "0 and 3 heads"),
        ({"kv_heads": 0}, "3 and 0 heads"),
        ({"kv_heads": -1}, "3 and -1 heads"),
    ],
)
def test_arrays_of_other_dimensions_and_heads(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"qkv": mx.zeros((3, 72)), "positions": mx.zeros((3,), dtype=mx.int32)}
    arguments |= {"cos": mx.zeros((50, 4)), "sin": mx.zeros((50, 4)), "num_heads": 3, "kv_heads": 3}
    with pytest.raises(ValueError, match=message):
        rope(**(arguments | change))


@pytest.mark.parametrize("dtypes", [(mx.float32, mx.float16), (mx.int32, mx.int32)])
def test_norms_of_dtypes_that_do_not_fit(dtypes: tuple[mx.Dtype, mx.Dtype]) -> None:
    """A kernel reads both as it reads one of them."""
    turn, norms = rotation([3], 8), HeadNorms(*(mx.zeros(8, dtype=dtype) for dtype in dtypes), 1e-6)
    with pytest.raises(TypeError, match="norms of one dtype"):
        rope(mx.zeros((3, 72)), *turn[:3], HEADS, None, norms)
    with pytest.raises(TypeError, match="norms of one dtype"):
        attention(mx.zeros((3, 72)), starts([3]), HEADS, 1.0, None, turn._replace(norms=norms))


def test_half_precision_is_rounded_once() -> None:
    qkv = np.random.default_rng().normal(size=(9, 3 * HEADS * HEAD_DIM)).astype(np.float16)
    positions = np.arange(9, dtype=np.int32)
    found = rope(mx.array(qkv), mx.array(positions), *map(mx.array, tables()), HEADS)
    assert found.dtype == mx.float16
    assert np.abs(np.array(found) - expected(qkv, positions)).max() <= 2e-3


@twins
@pytest.mark.parametrize(("rows", "width", "heads"), [(3, 72, 2), (3, 70, 3), (2, 72, 3)])
def test_shapes_that_do_not_fit(rows: int, width: int, heads: int, op: Callable, array: Callable) -> None:
    qkv = array(np.zeros((3, width), dtype=np.float32))
    positions = array(np.zeros(rows, dtype=np.int32))
    with pytest.raises(ValueError, match="rope"):
        op(qkv, positions, *map(array, tables()), heads)
