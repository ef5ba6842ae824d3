"""The embedding layer against float64, on every back end that this machine has."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import embedding_norm
from custom_kernels.ops.embedding_norm import reference_embedding_norm
from tests.custom_kernels.conftest import DTYPES, TOLERANCE, error, exact, present, random


@pytest.mark.parametrize("norm", ["weight and bias", "weight", "none"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [33, 384, 768, 2048])
@pytest.mark.parametrize("backend", present("embedding_norm"))
def test_embedding_norm(backend: str, width: int, dtype: str, count: int, norm: str) -> None:
    rng = np.random.default_rng()
    lookups = [
        (random(v, width, dtype=dtype), mx.array(rng.integers(0, v, size=37).astype(np.int32)))
        for v in (101, 50, 2)[:count]
    ]
    weight = None if norm == "none" else random(width, dtype=dtype)
    bias = random(width, dtype=dtype) if norm == "weight and bias" else None
    expected = sum(exact(table)[np.array(ids)] for table, ids in lookups)
    if weight is not None:
        centred = expected - expected.mean(axis=-1, keepdims=True)
        expected = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-12) * exact(weight)
    if bias is not None:
        expected = expected + exact(bias)
    # "reference" is MLX's own ops; what kernels are compared with is another.
    ways = [reference_embedding_norm] if backend == "reference" else []
    for way in (partial(embedding_norm, backend=backend), *ways):
        found = way(lookups, weight, bias, 1e-12)
        assert found.dtype == DTYPES[dtype]
        assert error(found, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("backend", present("embedding_norm"))
def test_embedding_norm_of_nothing(backend: str) -> None:
    found = embedding_norm([(mx.zeros((3, 8)), mx.zeros((0,), dtype=mx.int32))], None, None, 1e-5, backend=backend)
    mx.eval(found)
    assert found.shape == (0, 8)


@pytest.mark.parametrize(
    ("lookups", "message"),
    [
        ([], "1 to 3 lookups"),
        ([(mx.zeros((3, 8)), mx.zeros((4,), dtype=mx.int32))] * 4, "1 to 3 lookups"),
        ([(mx.zeros((3, 8)), mx.zeros((4,)))], "ids int32"),
        ([(mx.zeros((8,)), mx.zeros((4,), dtype=mx.int32))], "tables"),
        (
            [(mx.zeros((3, 8)), mx.zeros((4,), dtype=mx.int32)), (mx.zeros((3, 9)), mx.zeros((4,), dtype=mx.int32))],
            "tables alike",
        ),
        ([(mx.zeros((3, 8), dtype=mx.int32), mx.zeros((4,), dtype=mx.int32))], "float32"),
    ],
)
def test_bad_embedding_input(lookups: list[tuple[mx.array, mx.array]], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        embedding_norm(lookups, None, None, 1e-5)


def test_a_bias_without_a_weight() -> None:
    """It would be added to nothing."""
    with pytest.raises(ValueError, match="but no weight"):
        embedding_norm([(mx.zeros((3, 8)), mx.zeros((4,), dtype=mx.int32))], None, mx.ones(8), 1e-5)
