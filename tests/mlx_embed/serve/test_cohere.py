"""Reranking and embedding as Cohere's and Jina's clients ask for it."""

from typing import Any

import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel
from mlx_embed.serve.cohere import steps
from mlx_embed.serve.models import Embedder
from tests.checkpoints import reranker as make_reranker
from tests.mlx_embed.serve.harness import Running, random_texts, serving
from tests.mlx_embed.serve.test_openai import decoded

TOLERANCE = 1e-5
DOCUMENTS = random_texts(20, 20, seed=5)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_the_whole_answer(running: Running, cross_encoder: CrossEncoder, path: str) -> None:
    body = {"model": "tiny-reranker", "query": "the wing", "documents": DOCUMENTS, "rank_fields": ["text"]}
    answer = running.post(path, body).json()
    scores = cross_encoder.predict([("the wing", document) for document in DOCUMENTS], activation="Sigmoid")
    results = answer.pop("results")
    assert sorted(result["index"] for result in results) == list(range(20))
    found = [result["relevance_score"] for result in results]
    assert found == sorted(found, reverse=True)
    for result in results:
        assert set(result) == {"index", "relevance_score"}
        assert result["relevance_score"] == pytest.approx(scores[result["index"]], abs=TOLERANCE)
    tokens = answer["usage"]["total_tokens"]
    assert tokens > 20 * 5
    assert answer.pop("id").startswith("rerank-")
    assert answer == {
        "model": "tiny-reranker",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {
            "api_version": {"version": "2"},
            "tokens": {"input_tokens": tokens},
            "billed_units": {"search_units": 1},
        },
    }


@pytest.mark.parametrize(("top_n", "count"), [(None, 20), (0, 20), (3, 3), (50, 20)])
def test_top_n(running: Running, top_n: int | None, count: int) -> None:
    body = {"query": "the wing", "documents": DOCUMENTS}
    whole = running.post("/v1/rerank", body).json()["results"]
    some = running.post("/v1/rerank", body | {"top_n": top_n}).json()["results"]
    assert [result["index"] for result in some] == [result["index"] for result in whole][:count]


def test_documents_as_objects_and_given_back(running: Running) -> None:
    documents = [{"text": "the wing", "title": "ignored"}, "flow"]
    body = {"query": "heat", "documents": documents, "return_documents": True}
    results = running.post("/v1/rerank", body).json()["results"]
    texts = {result["index"]: result["document"] for result in results}
    assert texts == {0: {"text": "the wing"}, 1: {"text": "flow"}}


def test_documents_cut(running: Running, cross_encoder: CrossEncoder) -> None:
    body = {"query": "heat", "documents": ["the wing of heat"], "max_tokens_per_doc": 2}
    result = running.post("/v2/rerank", body).json()["results"][0]
    assert result["relevance_score"] == pytest.approx(cross_encoder.predict(("heat", "the wing")), abs=TOLERANCE)


def test_scores_are_within_0_and_1_whatever_the_checkpoint_applies(tmp_path: Any) -> None:
    folder = make_reranker(
        "bert", 1, tmp_path, sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"}
    )
    model = CrossEncoder.from_pretrained(folder, device="cpu")
    assert model.activation == "Identity"
    with serving({}, {"raw": model}) as running:
        results = running.post("/rerank", {"query": "the wing", "documents": DOCUMENTS}).json()["results"]
    logits = model.predict([("the wing", document) for document in DOCUMENTS])
    assert logits.min() < 0
    for result in results:
        assert result["relevance_score"] == pytest.approx(1 / (1 + np.exp(-logits[result["index"]])), abs=TOLERANCE)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"query": "", "documents": ["a"]}, "query is empty"),
        ({"query": "a", "documents": []}, "documents is empty"),
        ({"query": "a"}, "missing required field `documents`"),
        ({"query": "a", "documents": [{"title": "x"}]}, "missing required field `text`"),
        ({"query": "a", "documents": ["a"] * 2049}, "documents has 2049 texts"),
        ({"query": "a", "documents": ["a"], "top_n": -1}, "top_n -1"),
        ({"query": "a", "documents": ["a"], "max_tokens_per_doc": 0}, "max_tokens_per_doc 0"),
    ],
)
def test_what_is_refused(running: Running, body: Any, message: str) -> None:
    answer = running.post("/v2/rerank", body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"message"}
    assert message in answer.json()["message"]
    answer = running.post("/v1/rerank", body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_an_embedding_model_does_not_rank(running: Running) -> None:
    answer = running.post("/v2/rerank", {"query": "a", "documents": ["a"], "model": "tiny-bert"})
    assert answer.status_code == 404
    assert answer.json() == {"message": "model 'tiny-bert' not found: the rerankers served here are tiny-reranker."}


def test_a_model_of_several_labels_does_not_rank(tmp_path: Any) -> None:
    model = CrossEncoder.from_pretrained(make_reranker("bert", 3, tmp_path), device="cpu")
    with serving({}, {"three": model}) as running:
        answer = running.post("/v2/rerank", {"query": "a", "documents": ["a"]})
    assert answer.status_code == 400
    assert answer.json() == {"message": "three has 3 labels, and cannot rank."}


def test_embed_v2(running: Running, encoder: EmbeddingModel) -> None:
    body = {
        "model": "tiny-bert",
        "texts": ["the wing", "flow"],
        "input_type": "search_query",
        "embedding_types": ["float", "base64", "ubinary", "binary"],
        "output_dimension": 16,
    }
    answer = running.post("/v2/embed", body).json()
    expected = encoder.encode(body["texts"], prompt_name="query", truncate_dim=16)
    embeddings = answer["embeddings"]
    assert list(embeddings) == body["embedding_types"]
    assert np.abs(np.array(embeddings["float"]) - expected).max() <= TOLERANCE
    assert (np.stack([decoded(text) for text in embeddings["base64"]]) == np.float32(embeddings["float"])).all()
    assert embeddings["ubinary"] == np.packbits(expected > 0, axis=1).tolist()
    assert embeddings["binary"] == (np.packbits(expected > 0, axis=1).astype(int) - 128).tolist()
    assert answer["texts"] == body["texts"]
    assert answer["meta"]["billed_units"]["input_tokens"] > 4


def test_embed_in_whole_numbers(running: Running, encoder: EmbeddingModel) -> None:
    """Of steps of 8 / sqrt(D) / 127, the same for every vector and in every request."""
    texts = random_texts(40, 20, seed=6)
    body = {"texts": texts, "embedding_types": ["int8", "uint8", "float"]}
    found = running.post("/v2/embed", body).json()["embeddings"]
    expected = encoder.encode(texts)
    codes = np.array(found["int8"])
    assert codes.min() >= -127
    assert np.abs(codes * 8 / np.sqrt(32) / 127 - expected).max() <= 0.5 * 8 / np.sqrt(32) / 127 + TOLERANCE
    assert (np.array(found["uint8"]) == codes + 128).all()
    alone = running.post("/v2/embed", body | {"texts": texts[7:8]}).json()["embeddings"]
    assert np.abs(np.array(alone["int8"]) - codes[7]).max() <= 1  # a number may lie between two steps


def test_whole_numbers_of_vectors_that_are_not_of_length_1_or_have_a_large_number() -> None:
    vectors = np.zeros((3, 400), np.float32)
    vectors[0, 0], vectors[1], vectors[2, :200] = 3.0, 5.0, -0.1
    codes = steps(vectors)
    assert codes[0, 0] == 127
    assert set(codes[1]) == {16}  # 127 / 8
    assert set(codes[2, :200]) == {-22}  # sqrt(2) as much
    assert not steps(np.zeros((1, 8), np.float32)).any()


@pytest.mark.parametrize(("input_type", "prompt"), [("classification", ""), ("search_document", "the ")])
def test_embed_v1(running: Running, encoder: EmbeddingModel, input_type: str, prompt: str) -> None:
    body = {"texts": ["wing", "flow"], "input_type": input_type}
    answer = running.post("/v1/embed", body).json()
    assert answer["response_type"] == "embeddings_floats"
    assert np.abs(np.array(answer["embeddings"]) - encoder.encode(body["texts"], prompt=prompt)).max() <= TOLERANCE
    answer = running.post("/v1/embed", body | {"embedding_types": ["float"]}).json()
    assert answer["response_type"] == "embeddings_by_type"
    assert len(answer["embeddings"]["float"]) == 2


def test_a_purpose_without_a_prompt_has_not_the_default_one(
    running: Running, encoder: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.service.models.find(None, Embedder).model, "default_prompt_name", "query")
    for input_type, prompt in (("clustering", ""), (None, encoder.prompts["query"])):
        found = running.post("/v1/embed", {"texts": ["wing"], "input_type": input_type}).json()["embeddings"]
        assert np.abs(np.array(found) - encoder.encode(["wing"], prompt=prompt)).max() <= TOLERANCE


def test_images_are_refused_by_their_name(running: Running) -> None:
    for path in ("/v1/embed", "/v2/embed"):
        answer = running.post(path, {"images": ["data:image/png;base64,AAAA"], "input_type": "image"})
        assert (answer.status_code, "images are not served here" in answer.text) == (400, True)


def test_embed_inputs_in_parts(running: Running, encoder: EmbeddingModel) -> None:
    inputs = [{"content": [{"type": "text", "text": "the "}, {"type": "text", "text": "wing"}]}]
    answer = running.post("/v2/embed", {"inputs": inputs, "embedding_types": ["float"]}).json()
    assert np.abs(np.array(answer["embeddings"]["float"]) - encoder.encode(["the wing"])).max() <= TOLERANCE
    inputs[0]["content"].append({"type": "image_url"})
    answer = running.post("/v2/embed", {"inputs": inputs})
    assert answer.status_code == 400
    assert "only texts" in answer.json()["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"texts": []}, "texts is empty"),
        ({}, "texts is empty"),
        ({"texts": ["a"], "embedding_types": ["int4"]}, "int4"),
        ({"texts": ["a"], "output_dimension": 999}, "1..32"),
        ({"texts": ["heat " * 99], "truncate": "NONE"}, "101 tokens"),
    ],
)
def test_what_embed_refuses(running: Running, body: Any, message: str) -> None:
    answer = running.post("/v2/embed", body)
    assert answer.status_code == 400
    assert message in answer.json()["message"]
