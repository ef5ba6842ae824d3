"""The best rows against numpy in float64, on every back end that this machine has."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import top_k_scores
from tests.custom_kernels.conftest import present


def expected(queries: np.ndarray, rows: np.ndarray, k: int, wanted: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """[n, 2, k] by sorting all scores."""
    scores = (queries.astype(np.float64) @ rows.astype(np.float64).T * scales).astype(np.float32)
    scores[:, ~wanted] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, axis=1)
    return np.stack([best, np.where(np.isinf(best), -1, order)], axis=1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("width", [3, 33, 384])
@pytest.mark.parametrize(("count", "k"), [(1, 1), (5, 9), (40, 40), (1003, 10)])
@pytest.mark.parametrize("backend", present("top_k_scores"))
def test_the_best_rows(backend: str, count: int, k: int, width: int, dtype: str) -> None:
    rng = np.random.default_rng()
    # Whole numbers: sums are exact, so that rows that are equal by chance come in the order of their places.
    queries, rows = rng.integers(-3, 4, (5, width)), rng.integers(-3, 4, (count, width))
    bits = rng.integers(0, 256, -(-count // 8), dtype=np.uint8)
    wanted = np.unpackbits(bits, count=count, bitorder="little").astype(bool)
    scales = rng.choice([0.5, 1.0, 2.0], count).astype(np.float32)
    for mask, factor in ((None, None), (bits, None), (bits, scales)):
        found = top_k_scores(
            mx.array(queries.astype(np.float32)),
            mx.array(rows.astype(np.float32)).astype(getattr(mx, dtype)),
            k,
            None if mask is None else mx.array(mask),
            None if factor is None else mx.array(factor),
            backend=backend,
        )
        every = np.ones(count, dtype=bool)
        best = expected(queries, rows, k, every if mask is None else wanted, np.ones(1) if factor is None else factor)
        padded = np.full((5, 2, k), -1.0, dtype=np.float32)
        padded[:, 0] = -np.inf
        padded[:, :, : best.shape[2]] = best
        np.testing.assert_array_equal(np.array(found), padded)


@pytest.mark.parametrize("backend", present("top_k_scores"))
def test_negative_scores_and_zeros(backend: str) -> None:
    rows = mx.array([[-1.0], [0.0], [-0.5], [-0.0], [2.0]])
    found = np.array(top_k_scores(mx.array([[1.0], [-1.0]]), rows, 5, backend=backend))
    assert found[:, 1].tolist() == [[4, 1, 3, 2, 0], [0, 2, 1, 3, 4]]
    assert found[0, 0].tolist() == [2, 0, 0, -0.5, -1]


@pytest.mark.parametrize("backend", present("top_k_scores"))
def test_nothing_to_find(backend: str) -> None:
    none = np.array(top_k_scores(mx.zeros((2, 4)), mx.zeros((0, 4)), 3, backend=backend))
    assert none.tolist() == [[[-np.inf] * 3, [-1.0] * 3]] * 2
    masked = top_k_scores(mx.zeros((1, 4)), mx.zeros((9, 4)), 2, mx.zeros(2, dtype=mx.uint8), backend=backend)
    assert np.array(masked).tolist() == [[[-np.inf] * 2, [-1.0] * 2]]
    assert top_k_scores(mx.zeros((0, 4)), mx.zeros((9, 4)), 2, backend=backend).shape == (0, 2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": mx.zeros((4,))}, "queries"),
        ({"rows": mx.zeros((9, 5))}, "rows"),
        ({"k": 0}, "a k from 1 up"),
        ({"queries": mx.zeros((1, 4), dtype=mx.float16)}, "float32 queries"),
        ({"rows": mx.zeros((9, 4), dtype=mx.int32)}, "int32"),
        ({"mask": mx.zeros(1, dtype=mx.uint8)}, r"mask of uint8 \[2\]"),
        ({"mask": mx.zeros(2)}, "mask"),
        ({"scales": mx.zeros(8)}, r"scales of float32 \[9\]"),
        ({"backend": "vulkan"}, "no backend 'vulkan'"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        top_k_scores(**({"queries": mx.zeros((1, 4)), "rows": mx.zeros((9, 4)), "k": 2} | change))
