"""Search against a full sort, by float64 scores."""

import sys
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import search

# The package's name for it is the function.
MODULE = sys.modules["mlx_embed.search"]
RNG = np.random.default_rng(0)
QUERIES = RNG.normal(size=(7, 24)).astype(np.float32)
DOCUMENTS = RNG.normal(size=(300, 24)).astype(np.float32)


def expected(queries: Any, documents: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = (np.asarray(queries, np.float64) @ np.asarray(documents, np.float64).T).astype(np.float32)
    places = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, places, axis=1), places


@pytest.mark.parametrize("k", [1, 10, 299, 300, 1000])
@pytest.mark.parametrize(("block", "values"), [(2**13, 2**22), (64, 128), (1, 1)])
def test_against_a_full_sort(k: int, block: int, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_DOCUMENTS", block)
    monkeypatch.setattr(MODULE, "_BLOCK", values)
    found = search(QUERIES, DOCUMENTS, k)
    scores, places = expected(QUERIES, DOCUMENTS, k)
    assert found.places.dtype == np.int64
    assert found.scores.dtype == np.float32
    assert np.array_equal(found.places, places)
    assert np.array_equal(found.scores, scores)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes(dtype: str) -> None:
    queries, documents = QUERIES.astype(dtype), DOCUMENTS.astype(dtype)
    scores, places = expected(queries, documents, 5)
    for found in (search(queries, documents, 5), search(queries.tolist(), documents.tolist(), 5)):
        assert np.array_equal(found.places, places)
        assert np.array_equal(found.scores, scores)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
def test_arrays_of_mlx(dtype: mx.Dtype) -> None:
    queries, documents = mx.array(QUERIES).astype(dtype), mx.array(DOCUMENTS).astype(dtype)
    wide = [np.array(x.astype(mx.float32)) for x in (queries, documents)]
    assert np.array_equal(search(queries, documents, 5).places, expected(*wide, 5)[1])


def test_the_first_of_equal_documents_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = np.tile(DOCUMENTS[:10], (30, 1))
    documents[250:] = 0
    documents[260:] *= -1  # zeros of the other sign, which are equal too
    for block in (2**13, 7):
        monkeypatch.setattr(MODULE, "_DOCUMENTS", block)
        found = search(QUERIES, documents, 300)
        assert np.array_equal(found.places, expected(QUERIES, documents, 300)[1])
        best = (QUERIES @ DOCUMENTS[:10].T).argmax(axis=1)
        assert np.array_equal(found.places[:, :3], best[:, None] + [0, 10, 20])


def test_zeros_of_either_sign_are_equal() -> None:
    """Products that are too small for float32 round to zeros that keep their sign."""
    tiny = np.array([[-1e-30], [1e-30], [0], [-1e-30]], dtype=np.float32)
    found = search(tiny[1], tiny, 4)
    assert found.places.tolist() == [0, 1, 2, 3]
    assert not np.signbit(found.scores).any()


def test_one_query_and_no_documents() -> None:
    one = search(QUERIES[0], DOCUMENTS, 3)
    assert one.places.shape == one.scores.shape == (3,)
    assert np.array_equal(one.places, search(QUERIES, DOCUMENTS, 3).places[0])
    assert search(QUERIES, DOCUMENTS[:0], 3).places.shape == (7, 0)
    assert search(QUERIES[:0], DOCUMENTS, 3).scores.shape == (0, 3)
    assert search(QUERIES, DOCUMENTS, np.int64(3)).places.shape == (7, 3)


BAD = DOCUMENTS.copy()
BAD[123, 4] = np.nan


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((QUERIES, DOCUMENTS, 0), ValueError, "k 0 is not a positive number"),
        ((QUERIES, DOCUMENTS, 1.5), TypeError, r"^k is 1\.5, a float, where a whole number is needed"),
        ((QUERIES, DOCUMENTS, True), TypeError, "^k is True, a bool"),
        ((QUERIES, DOCUMENTS, "3"), TypeError, "^k is '3', a str"),
        ((1.0, DOCUMENTS, 1), ValueError, r"got shapes \(\) and \(300, 24\)"),
        ((QUERIES[0, :5], DOCUMENTS, 1), ValueError, r"got shapes \(5,\) and \(300, 24\)"),
        (([[1.0], [1.0, 2.0]], DOCUMENTS, 1), ValueError, "^query_vectors is no array of numbers: "),
        ((QUERIES[:, :5], DOCUMENTS, 1), ValueError, r"of one length D, got shapes \(7, 5\) and \(300, 24\)"),
        ((QUERIES, DOCUMENTS[0], 1), ValueError, r"got shapes \(7, 24\) and \(24,\)"),
        ((QUERIES[None], DOCUMENTS, 1), ValueError, "got shapes"),
        ((QUERIES, BAD, 1), ValueError, r"document_vectors\[123\] has a value that is not finite"),
        ((-np.inf * QUERIES, DOCUMENTS, 1), ValueError, r"query_vectors\[0\] has a value"),
        ((QUERIES.astype(np.int8), DOCUMENTS, 1), TypeError, "query_vectors has dtype int8, where search needs floats"),
        ((["a"], DOCUMENTS, 1), TypeError, "query_vectors has dtype <U1"),
    ],
)
def test_bad_input(
    arguments: tuple[Any, ...], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "_DOCUMENTS", 50)
    with pytest.raises(error, match=message):
        search(*arguments)
