"""TEI's native routes, its status codes and its errors."""

from typing import Any

import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel
from mlx_embed.serve.models import Embedder
from tests.mlx_embed.serve.harness import Running, random_texts

TOLERANCE = 1e-5


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_embed(running: Running, encoder: EmbeddingModel, path: str) -> None:
    texts = random_texts(5, 20)
    answer = running.post(path, {"inputs": texts})
    assert np.abs(np.array(answer.json()) - encoder.encode(texts)).max() <= TOLERANCE
    single = running.post(path, {"inputs": texts[0], "normalize": True, "truncate": False})
    assert np.abs(np.array(single.json()) - encoder.encode(texts[:1])).max() <= TOLERANCE
    for name in ("total", "tokenization", "queue", "inference"):
        assert float(answer.headers[f"x-{name}-time"]) >= 0
    assert answer.headers["x-compute-type"] == "cpu"
    assert answer.headers["x-compute-characters"] == str(sum(map(len, texts)))
    assert answer.headers["x-compute-tokens"] == str(encoder.token_counts(texts).sum())


def test_options(running: Running, encoder: EmbeddingModel) -> None:
    text = "wing " * 62 + "heat " * 62
    for side, kept in (("right", "wing " * 62), ("Left", "heat " * 62)):
        found = running.post("/embed", {"inputs": text, "truncation_direction": side}).json()
        assert np.abs(np.array(found) - encoder.encode([kept])).max() <= TOLERANCE
    found = running.post("/embed", {"inputs": "wing", "prompt_name": "query", "dimensions": 5}).json()
    assert np.abs(np.array(found) - encoder.encode(["wing"], prompt_name="query", truncate_dim=5)).max() <= TOLERANCE
    raw = np.array(running.post("/embed", {"inputs": "wing", "normalize": False}).json())
    assert abs(np.linalg.norm(raw) - 1) > 1e-3
    assert np.abs(raw / np.linalg.norm(raw) - encoder.encode(["wing"])).max() <= TOLERANCE


def test_embed_all(running: Running, encoder: EmbeddingModel) -> None:
    texts = random_texts(3, 9)
    rows = [np.array(row) for row in running.post("/embed_all", {"inputs": texts}).json()]
    assert [row.shape for row in rows] == [(count, 32) for count in encoder.token_counts(texts)]
    means = np.stack([row.mean(axis=0) for row in rows])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert np.abs(means - encoder.encode(texts)).max() <= TOLERANCE


@pytest.mark.parametrize("path", ["/similarity", "/"])
def test_similarity(running: Running, encoder: EmbeddingModel, path: str) -> None:
    sentences = random_texts(4, 9)
    body = {"inputs": {"source_sentence": "the wing", "sentences": sentences}, "parameters": {}}
    expected = encoder.similarity(encoder.encode("the wing"), encoder.encode(sentences))[0]
    assert np.abs(np.array(running.post(path, body).json()) - expected).max() <= TOLERANCE


def test_rerank(running: Running, cross_encoder: CrossEncoder) -> None:
    texts = random_texts(6, 12)
    pairs = [("the wing", text) for text in texts]
    for raw, activation in ((False, "Sigmoid"), (True, "Identity")):
        body = {"query": "the wing", "texts": texts, "raw_scores": raw, "return_text": raw}
        found = running.post("/rerank", body).json()
        scores = cross_encoder.predict(pairs, activation=activation)
        assert [entry["score"] for entry in found] == pytest.approx(sorted(scores, reverse=True), abs=TOLERANCE)
        for entry in found:
            assert entry["score"] == pytest.approx(scores[entry["index"]], abs=TOLERANCE)
            assert entry.get("text") == (texts[entry["index"]] if raw else None)


def test_predict(running: Running, cross_encoder: CrossEncoder) -> None:
    pairs = [["the wing", "flow"], ["heat", "code"]]
    scores = cross_encoder.predict(pairs, activation="Sigmoid")
    one = running.post("/predict", {"inputs": pairs[0]}).json()
    assert one == [{"label": "L0", "score": pytest.approx(scores[0], abs=TOLERANCE)}]
    both = running.post("/predict", {"inputs": pairs, "raw_scores": True}).json()
    logits = cross_encoder.predict(pairs, activation="Identity")
    assert [row[0]["score"] for row in both] == pytest.approx(logits.tolist(), abs=TOLERANCE)


def test_tokenize_and_decode(running: Running, encoder: EmbeddingModel) -> None:
    (tokens,) = running.post("/tokenize", {"inputs": "the wing"}).json()
    assert [token["id"] for token in tokens] == encoder.tokenizer(["the wing"]).ids.tolist()[0]
    assert [token["special"] for token in tokens] == [True, False, False, True]
    assert (tokens[2]["start"], tokens[2]["stop"], tokens[2]["text"]) == (4, 8, "wing")
    ids = [token["id"] for token in tokens]
    assert running.post("/decode", {"ids": ids}).json() == ["the wing"]
    assert running.post("/decode", {"ids": [ids, ids[1:2]]}).json() == ["the wing", "the"]
    (plain,) = running.post(
        "/tokenize", {"inputs": ["wing"], "add_special_tokens": False, "prompt_name": "query"}
    ).json()
    assert [token["text"] for token in plain] == ["heat", "of", "wing"]


def test_info(running: Running, encoder: EmbeddingModel) -> None:
    found = running.get("/info").json()
    assert found["model_id"] == "org/Tiny-BERT"
    assert found["model_dtype"] == "float32"
    assert found["model_type"] == {"embedding": {"pooling": "mean"}}
    assert found["max_input_length"] == encoder.max_seq_length
    assert found["max_client_batch_size"] == 2048


def test_health(running: Running) -> None:
    for path in ("/health", "/", "/ping"):
        assert running.get(path).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/embed", {"inputs": []}, 400, "Empty"),
        ("/embed", {"inputs": [""]}, 400, "Empty"),
        ("/embed", {}, 422, "Validation"),
        ("/embed", {"inputs": "heat " * 99, "truncate": False}, 422, "Validation"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, 422, "Validation"),
        ("/embed", {"inputs": ["a"] * 2049}, 422, "Validation"),
        ("/predict", {"inputs": "a text alone"}, 422, "Validation"),
        ("/predict", {"inputs": [["a", "b", "c"]]}, 422, "Validation"),
        ("/predict", {"inputs": []}, 422, "Validation"),
        ("/rerank", {"query": "a"}, 422, "Validation"),
        ("/rerank", {"query": "a", "texts": ["heat " * 99], "truncate": False}, 422, "Validation"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "Empty"),
        ("/decode", {"ids": []}, 422, "Validation"),
        ("/decode", {"ids": [1, [2]]}, 422, "Validation"),
        ("/decode", {"ids": [-1]}, 422, "Validation"),
    ],
)
def test_what_is_refused(running: Running, path: str, body: Any, status: int, kind: str) -> None:
    answer = running.post(path, body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "error_type"}
    assert answer.json()["error_type"] == kind


def test_a_text_that_is_not_finite(running: Running, encoder: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Embedder._begin

    def poisoned(self: Embedder, key: Any, texts: list[Any]) -> Any:
        rows = own(self, key, texts)()
        bad = encoder.tokenizer(["qux"]).ids.tolist()[0]
        rows[[list(text.ids) == bad for text in texts]] = np.nan
        return lambda: rows

    queue = running.service.models.find("default", Embedder).queue
    monkeypatch.setattr(queue, "_begin", lambda key, texts: poisoned(running.service.models.find(None), key, texts))
    for path, field, status in (("/embed", "inputs", 424), ("/v1/embeddings", "input", 422)):
        answer = running.post(path, {field: ["the wing", "qux"]})
        assert answer.status_code == status
        assert "[1] gives a vector that is not finite" in answer.text
        assert running.post(path, {field: ["the wing"]}).status_code == 200
