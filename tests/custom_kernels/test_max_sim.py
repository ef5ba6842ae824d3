"""Late interaction against numpy in float64, on every back end that this machine has, and natively."""

import sys
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu, max_sim
from custom_kernels.arrays import starts
from tests.custom_kernels.conftest import present

ASKED = [3, 0, 37, 1, 32, 70]
TEXTS = [1, 40, 0, 32, 65, 7, 0]


def expected(queries: np.ndarray, asked: list[int], documents: np.ndarray, texts: list[int]) -> np.ndarray:
    """Each pair by itself."""
    a = np.split(queries.astype(np.float64), np.cumsum(asked)[:-1])
    b = np.split(documents.astype(np.float64), np.cumsum(texts)[:-1])
    return np.array([[(x @ y.T).max(axis=1).sum() if len(y) else -np.inf for y in b] for x in a])


def arrays(asked: list[int], texts: list[int], width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng()
    return tuple(rng.normal(size=(sum(lengths), width)).astype(np.float32) for lengths in (asked, texts))  # type: ignore[return-value]


@pytest.mark.parametrize("width", [1, 33, 64, 128, 200])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("backend", present("max_sim"))
def test_scores(backend: str, dtype: str, width: int) -> None:
    queries, documents = (mx.array(x).astype(getattr(mx, dtype)) for x in arrays(ASKED, TEXTS, width))
    found = max_sim(queries, starts(*ASKED), documents, starts(*TEXTS), backend=backend)
    rows = (np.array(x.astype(mx.float32)) for x in (queries, documents))
    exact = expected(*(arg for pair in zip(rows, (ASKED, TEXTS), strict=True) for arg in pair))
    bound = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 2e-2}[dtype]
    assert found.dtype == mx.float32
    assert (np.isinf(found) == np.isinf(exact)).all()
    there = np.isfinite(exact)
    assert np.abs(np.array(found)[there] - exact[there]).max() <= bound * np.abs(exact[there]).max()


@pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")
@pytest.mark.parametrize("at_once", [2**24, 280, 1])
def test_native_scores(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["custom_kernels.cpu.max_sim"], "AT_ONCE", at_once)
    queries, documents = arrays(ASKED, TEXTS, 48)
    found = cpu.max_sim(queries, np.array(starts(*ASKED)), documents, np.array(starts(*TEXTS)))
    exact = expected(queries, ASKED, documents, TEXTS)
    assert np.isinf(found[:, [2, 6]]).all()
    assert np.isinf(found).sum() == 2 * len(ASKED)
    there = np.isfinite(exact)
    assert np.abs(found[there] - exact[there]).max() <= 1e-5 * np.abs(exact[there]).max()


def test_nothing_to_compare() -> None:
    none = max_sim(mx.zeros((0, 4)), starts(), mx.ones((3, 4)), starts(3))
    assert none.shape == (0, 1)
    assert np.array(max_sim(mx.zeros((0, 4)), starts(0), mx.ones((3, 4)), starts(0, 3))).tolist() == [[-np.inf, 0]]
    assert np.array(max_sim(mx.ones((2, 4)), starts(2), mx.ones((0, 4)), starts(0, 0))).tolist() == [[-np.inf] * 2]
    assert max_sim(mx.ones((2, 4)), starts(2), mx.ones((0, 4)), starts()).shape == (1, 0)
    if cpu.available():
        empty, one = np.zeros((0, 4), np.float32), np.ones((2, 4), np.float32)
        assert cpu.max_sim(empty, np.array([0, 0], np.int32), one, np.array([0, 0, 2], np.int32)).tolist() == [
            [-np.inf, 0]
        ]
        assert cpu.max_sim(one, np.array([0, 2], np.int32), empty, np.array([0, 0], np.int32)).tolist() == [[-np.inf]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": mx.zeros((4,))}, "queries"),
        ({"documents": mx.zeros((9, 5))}, "documents"),
        ({"documents": mx.zeros((9, 4), dtype=mx.float16)}, "one dtype"),
        ({"query_starts": mx.zeros(2)}, "query_starts int32"),
        ({"document_starts": mx.zeros((2, 2), dtype=mx.int32)}, "document_starts"),
        ({"backend": "vulkan"}, "no backend 'vulkan'"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    given = {"queries": mx.zeros((2, 4)), "query_starts": starts(2), "documents": mx.zeros((9, 4))}
    with pytest.raises((ValueError, TypeError), match=message):
        max_sim(**(given | {"document_starts": starts(4, 5)} | change))
    if not cpu.available():
        return
    with pytest.raises(ValueError, match="run from 0 to 2"):
        cpu.max_sim(
            np.ones((2, 4), np.float32),
            np.array([0, 3], np.int32),
            np.ones((1, 4), np.float32),
            np.array([0, 1], np.int32),
        )
