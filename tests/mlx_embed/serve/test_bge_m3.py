"""BGE-M3 over HTTP, beside the same model asked directly."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import BGEM3, SparseVector, SparseVectors
from mlx_embed.bge_m3 import M3Vectors
from mlx_embed.serve.limits import Limits
from tests.bge_m3 import make
from tests.mlx_embed.serve.harness import Running, random_texts, serving

pytestmark = pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")
TOLERANCE = 1e-5
TEXTS = [*random_texts(4, 12), "the wing " * 60]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BGEM3:
    made = BGEM3.from_pretrained(make(tmp_path_factory.mktemp("m3"), 20), device="cpu")
    made.prompts["query"] = "heat of "
    return made


@pytest.fixture(scope="module")
def served(model: BGEM3) -> Iterator[Running]:
    with serving({}, {}, {"m3": model}) as running:
        yield running


@pytest.fixture(scope="module")
def expected(model: BGEM3) -> M3Vectors:
    return model.encode(TEXTS)


@pytest.fixture
def passes(model: BGEM3, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each forward pass of the model has."""
    seen: list[int] = []
    run = model.engine.run

    def counted(batches: Any, head: Any, **options: Any) -> Any:
        listed = list(batches)
        seen.extend(len(batch.texts) for batch in listed)
        return run(iter(listed), head, **options)

    monkeypatch.setattr(model.engine, "run", counted)
    return seen


def sparse(rows: list[list[dict[str, Any]]], dimension: int = 120) -> np.ndarray:
    vectors = [
        SparseVector(
            np.array([entry["index"] for entry in row], np.int32), np.array([e["value"] for e in row], np.float32)
        )
        for row in rows
    ]
    return SparseVectors.of(vectors, dimension).dense()


def test_dense(served: Running, model: BGEM3, expected: M3Vectors) -> None:
    body = {"input": TEXTS, "model": "m3"}
    answer = served.post("/v1/embeddings", body).json()
    assert np.array([e["embedding"] for e in answer["data"]]) == pytest.approx(expected.dense, abs=TOLERANCE)
    assert answer["truncated"] == [4]
    assert np.array(served.post("/embed", {"inputs": TEXTS}).json()) == pytest.approx(expected.dense, abs=TOLERANCE)
    query = model.encode(TEXTS, prompt_name="query").dense
    found = served.post("/embed", {"inputs": TEXTS, "input_type": "query"}).json()
    assert np.array(found) == pytest.approx(query, abs=TOLERANCE)
    for path, body in (
        ("/v2/embed", {"texts": TEXTS, "model": "m3"}),
        ("/api/embed", {"input": TEXTS, "model": "m3"}),
    ):
        vectors = served.post(path, body).json()["embeddings"]
        vectors = vectors["float"] if isinstance(vectors, dict) else vectors
        assert np.array(vectors) == pytest.approx(expected.dense, abs=TOLERANCE), path


def test_sparse(served: Running, model: BGEM3, expected: M3Vectors) -> None:
    found = served.post("/embed_sparse", {"inputs": TEXTS}).json()
    assert sparse(found) == pytest.approx(expected.sparse.dense(), abs=TOLERANCE)
    query = model.encode(TEXTS[:1], prompt_name="query").sparse.dense()
    found = served.post("/embed_sparse", {"inputs": TEXTS[0], "input_type": "query"}).json()
    assert sparse(found) == pytest.approx(query, abs=TOLERANCE)


def test_a_vector_a_token(served: Running, expected: M3Vectors) -> None:
    found = served.post("/embed_all", {"inputs": TEXTS}).json()
    for own, whole in zip(found, expected.multi_vector, strict=True):
        assert np.array(own) == pytest.approx(whole, abs=TOLERANCE)


def test_a_vector_a_token_within_the_limit(model: BGEM3) -> None:
    texts = ["the wing " * model.max_seq_length] * 3
    room = Limits(numbers=3 * model.max_seq_length * model.token_dimension)
    with serving({}, {}, {"m3": model}, limits=room) as running:
        assert running.post("/embed_all", {"inputs": texts}).status_code == 200
        assert running.post("/embed_all", {"inputs": [*texts, "wing"]}).status_code == 413


def test_rerank_weighs_all_three_in_one_pass_a_side(served: Running, model: BGEM3, passes: list[int]) -> None:
    query = model.encode(TEXTS[0], prompt_name="query")
    scores = model.similarity(query, model.encode(TEXTS), (0.4, 0.2, 0.4))[0]
    passes.clear()
    raw = served.post("/rerank", {"query": TEXTS[0], "texts": TEXTS, "raw_scores": True}).json()
    assert sum(passes) == 1 + len(TEXTS)
    assert [entry["index"] for entry in raw] == np.argsort(-scores, kind="stable").tolist()
    assert [entry["score"] for entry in raw] == pytest.approx(np.sort(scores)[::-1], abs=TOLERANCE)
    found = served.post("/v1/rerank", {"query": TEXTS[0], "documents": TEXTS, "top_n": 1}).json()["results"]
    assert found[0]["relevance_score"] == pytest.approx(np.clip(scores.max(), 0, 1), abs=TOLERANCE)


def test_all_kinds_of_one_request_in_one_pass(served: Running, expected: M3Vectors, passes: list[int]) -> None:
    body = {"texts": TEXTS, "kinds": ["multi_vector", "dense", "sparse"], "truncate_dim": 7}
    found = served.post("/v1/encode", body).json()
    assert sum(passes) == len(TEXTS)
    assert found["dimension"] == 7
    dense = np.frombuffer(base64.b64decode(found["vectors"]), "<f4").reshape(-1, 7)
    cut = expected.dense[:, :7] / np.linalg.norm(expected.dense[:, :7], axis=1, keepdims=True)
    assert dense == pytest.approx(cut, abs=TOLERANCE)
    weights, vectors = found["sparse"], found["multi_vector"]
    assert (weights["dimension"], vectors["dimension"]) == (120, 20)
    assert weights["lengths"] == np.diff(expected.sparse.indptr).tolist()
    assert np.frombuffer(base64.b64decode(weights["indices"]), "<i4").tolist() == expected.sparse.indices.tolist()
    values = np.frombuffer(base64.b64decode(weights["values"]), "<f4")
    assert values == pytest.approx(expected.sparse.values, abs=TOLERANCE)
    assert vectors["lengths"] == np.diff(expected.multi_vector.offsets).tolist()
    values = np.frombuffer(base64.b64decode(vectors["values"]), "<f4").reshape(-1, 20)
    assert values == pytest.approx(expected.multi_vector.vectors, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/embed_sparse", {"inputs": ["heat", "heat " * 99], "truncate": False}, 422, "inputs[1] has 101 tokens"),
        ("/embed_all", {"inputs": "heat", "prompt_name": "none"}, 422, "prompt_name"),
        ("/rerank", {"query": "heat " * 99, "texts": ["heat"], "truncate": False}, 422, "query has 103 tokens"),
        ("/rerank", {"query": "a", "documents": ["heat"], "max_tokens_per_doc": 3}, 422, "its own length"),
        ("/v1/encode", {"texts": ["a"], "kinds": ["sparse"], "truncate_dim": 4}, 400, "truncate_dim is of dense"),
        ("/v1/encode", {"texts": ["a"], "kinds": []}, 400, "kinds is empty"),
    ],
)
def test_refusals(served: Running, path: str, body: dict[str, Any], status: int, message: str) -> None:
    answer = served.post(path, body)
    assert answer.status_code == status, answer.text
    assert message in answer.text


def test_a_vector_that_is_not_finite_fails_its_own_text(tmp_path: Path) -> None:
    model = BGEM3.from_pretrained(make(tmp_path), device="cpu")
    computed = model.computed

    def broken(ids: Any, *arguments: Any, **options: Any) -> Any:
        rows = computed(ids, *arguments, **options)
        for place, own in enumerate(ids):
            if len(own) > 30:
                rows[place].sparse.values[0] = np.nan
        return rows

    model.computed = broken  # type: ignore[method-assign]
    with serving({}, {}, {"m3": model}) as running:
        answer = running.post("/embed_sparse", {"inputs": ["heat", "the wing " * 30]})
        assert answer.status_code == 424
        assert "inputs[1] gives a vector that is not finite" in answer.text
        assert running.post("/embed_sparse", {"inputs": ["heat"]}).status_code == 200
