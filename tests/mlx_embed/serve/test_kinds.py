"""Sparse and late-interaction models over HTTP, beside the same models asked directly."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel, MultiVectorEncoder, SparseEncoder, SparseVector, SparseVectors
from mlx_embed.serve.limits import Limits
from tests.mlx_embed.serve.harness import Running, random_texts, serving
from tests.multi_vector import make as make_multi_vector
from tests.sparse import make as make_sparse
from tests.static import make as make_static

pytestmark = pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> SparseEncoder:
    return SparseEncoder.from_pretrained(make_sparse(tmp_path_factory.mktemp("s"), "queries looked up"), device="cpu")


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> MultiVectorEncoder:
    return MultiVectorEncoder.from_pretrained(make_multi_vector(tmp_path_factory.mktemp("l"), "prompts"), device="cpu")


@pytest.fixture(scope="module")
def served(sparse: SparseEncoder, late: MultiVectorEncoder) -> Iterator[Running]:
    with serving({}, {}, {"splade": sparse, "colbert": late}) as running:
        yield running


def dense(answer: Any, dimension: int) -> np.ndarray:
    rows = [
        SparseVector(*(np.array([entry[key] for entry in row]) for key in ("index", "value"))) for row in answer.json()
    ]
    indices = [SparseVector(row.indices.astype(np.int32), row.values.astype(np.float32)) for row in rows]
    return SparseVectors.of(indices, dimension).dense()


def test_embed_sparse(served: Running, sparse: SparseEncoder) -> None:
    texts = random_texts(5, 20)
    for input_type, method in ((None, sparse.encode), ("query", sparse.encode_query), ("document", sparse.encode)):
        expected = method(texts).dense()
        found = served.post("/embed_sparse", {"inputs": texts, "input_type": input_type})
        assert np.abs(dense(found, expected.shape[1]) - expected).max() <= TOLERANCE
    single = served.post("/embed_sparse", {"inputs": texts[0], "model": "splade"})
    assert np.abs(dense(single, 120) - sparse.encode(texts[:1]).dense()).max() <= TOLERANCE


def test_embed_all(served: Running, late: MultiVectorEncoder) -> None:
    texts = random_texts(4, 12)
    for input_type, method in ((None, late.encode_document), ("query", late.encode_query)):
        found = served.post("/embed_all", {"inputs": texts, "input_type": input_type}).json()
        for a, b in zip(found, method(texts), strict=True):
            assert np.abs(np.array(a) - b).max() <= TOLERANCE


def test_embed_all_answers_no_more_numbers_than_its_limit(late: MultiVectorEncoder) -> None:
    texts = ["the wing " * late.max_seq_length] * 3
    with serving({}, {}, {"colbert": late}, limits=Limits(numbers=3 * late.max_seq_length * late.dimension)) as running:
        assert running.post("/embed_all", {"inputs": texts}).status_code == 200
        assert running.post("/embed_all", {"inputs": [*texts, "wing"]}).status_code == 413
        assert running.post("/rerank", {"query": "wing", "texts": [*texts, "wing"]}).status_code == 200


def test_a_prompt_that_encode_document_does_not_take(
    served: Running, late: MultiVectorEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of this kind has a "document" prompt, if an empty one: "passage" is never come to."""
    monkeypatch.setattr(late, "prompts", {"passage": "flow of heat "})
    found = served.post("/embed_all", {"inputs": ["heat"]}).json()
    assert np.abs(np.array(found[0]) - late.encode_document(["heat"])[0]).max() <= TOLERANCE


def test_rerank(served: Running, late: MultiVectorEncoder) -> None:
    texts = random_texts(6, 12)
    expected = {entry["corpus_id"]: entry["score"] for entry in late.rank("the wing", texts)}
    raw = served.post("/rerank", {"query": "the wing", "texts": texts, "raw_scores": True}).json()
    assert [entry["index"] for entry in raw] == list(expected)
    assert {entry["index"]: entry["score"] for entry in raw} == pytest.approx(expected, abs=1e-4)
    found = served.post("/v1/rerank", {"query": "the wing", "documents": texts, "top_n": 2}).json()["results"]
    shares = [np.clip(score / 12, 0, 1) for score in expected.values()][:2]
    assert [entry["relevance_score"] for entry in found] == pytest.approx(shares, abs=1e-5)
    assert [entry["index"] for entry in found] == list(expected)[:2]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/embed_sparse", {"inputs": "heat", "input_type": "image"}, 422, "input_type"),
        ("/embed_sparse", {"inputs": "heat", "prompt_name": "none"}, 422, "prompt_name"),
        ("/embed_sparse", {"inputs": "heat", "model": "colbert"}, 404, "sparse models served here are splade"),
        ("/embed_sparse", {"inputs": "heat " * 99, "truncate": False}, 422, "101 tokens"),
        ("/embed_sparse", {"inputs": [""]}, 400, "empty"),
        (
            "/embed",
            {"inputs": "heat"},
            404,
            "no embedding models are served here: start the server with `mlx-embed serve MODEL`",
        ),
        ("/rerank", {"query": "", "texts": ["heat"]}, 400, "query is empty"),
        ("/v1/rerank", {"query": "a", "documents": ["heat"], "max_tokens_per_doc": 3}, 400, "its own length"),
    ],
)
def test_refusals(served: Running, path: str, body: dict[str, Any], status: int, message: str) -> None:
    answer = served.post(path, body)
    assert answer.status_code == status, answer.text
    assert message in answer.text


def test_info_and_tokenize(served: Running) -> None:
    assert served.get("/info").json()["model_type"] == {"embedding": {"pooling": "splade"}}
    assert len(served.post("/tokenize", {"inputs": "heat", "model": "colbert"}).json()[0]) == 3
    assert {entry["id"] for entry in served.get("/v1/models").json()["data"]} == {"splade", "colbert"}


def test_a_model2vec_models_texts_are_cut_as_by_encode(tmp_path: Path) -> None:
    model = EmbeddingModel.from_pretrained(make_static(tmp_path, "model2vec, cut at 5 tokens"), device="cpu")
    # The beginning of the first has fewer tokens than are wanted, and the rest of it is not read.
    texts = [" " * 60 + "the wing", "the wing flow " * 40, "", "heat"]
    with serving({"static": model}) as running:
        found = running.post("/v1/encode", {"texts": texts}).json()
    expected, info = model.encode(texts, return_info=True)
    vectors = np.frombuffer(base64.b64decode(found["vectors"]), dtype=np.float32).reshape(expected.shape)
    assert np.abs(vectors - expected).max() <= TOLERANCE
    assert found["token_counts"] == info.token_counts.tolist()
    assert not vectors[0].any()
