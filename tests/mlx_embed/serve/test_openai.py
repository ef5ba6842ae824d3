"""OpenAI's routes: shapes, vectors as `encode` gives them, and what is refused, in words."""

from typing import Any

import httpx
import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.serve.service import Service
from tests.mlx_embed.serve.harness import Running, random_texts, serving

TOLERANCE = 1e-5


def decoded(embedding: Any) -> np.ndarray:
    if isinstance(embedding, str):
        import base64

        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return np.array(embedding, dtype=np.float32)


def vectors(running: Running, **body: Any) -> np.ndarray:
    answer = running.post("/v1/embeddings", body)
    assert answer.status_code == 200, answer.text
    return np.stack([decoded(entry["embedding"]) for entry in answer.json()["data"]])


def test_the_whole_answer(running: Running, encoder: EmbeddingModel) -> None:
    texts = ["the wing", "heat " * 200, "flow"]
    answer = running.post("/v1/embeddings", {"input": texts, "model": "tiny-bert", "user": "me", "unknown": {}}).json()
    found = [answer["data"].pop(0) for _ in range(3)]
    tokens = int(np.minimum(encoder.token_counts(texts), encoder.max_seq_length).sum())
    assert answer == {
        "object": "list",
        "data": [],
        "model": "org/Tiny-BERT",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "truncated": [1],
    }
    assert [(entry["object"], entry["index"]) for entry in found] == [("embedding", i) for i in range(3)]
    assert np.abs(np.array([entry["embedding"] for entry in found]) - encoder.encode(texts)).max() <= TOLERANCE


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_a_single_text(running: Running, encoder: EmbeddingModel, path: str) -> None:
    answer = running.post(path, {"input": "the wing"}).json()
    assert np.abs(np.array(answer["data"][0]["embedding"]) - encoder.encode("the wing")).max() <= TOLERANCE


def test_base64_has_the_bits_of_float(running: Running) -> None:
    texts = random_texts(10, 30)
    answer = running.post("/v1/embeddings", {"input": texts, "encoding_format": "base64"}).json()
    found = [entry["embedding"] for entry in answer["data"]]
    assert all(isinstance(embedding, str) for embedding in found)
    assert (np.stack(list(map(decoded, found))) == vectors(running, input=texts, encoding_format="float")).all()


def test_many_texts_at_once(running: Running, encoder: EmbeddingModel) -> None:
    texts = random_texts(2048, 12)
    assert np.abs(vectors(running, input=texts) - encoder.encode(texts)).max() <= TOLERANCE


def test_dimensions(running: Running, encoder: EmbeddingModel) -> None:
    found = vectors(running, input=["the wing"], dimensions=8)
    assert np.abs(found - encoder.encode(["the wing"], truncate_dim=8)).max() <= TOLERANCE
    assert np.linalg.norm(found) == pytest.approx(1)


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ({"prompt_name": "query"}, "query"),
        ({"input_type": "query"}, "query"),
        ({"input_type": "search_query"}, "query"),
        ({"input_type": "document"}, "passage"),
        ({"input_type": "search_document"}, "passage"),
    ],
)
def test_prompts(running: Running, encoder: EmbeddingModel, given: dict[str, str], prompt: str) -> None:
    found = vectors(running, input=["the wing"], **given)
    assert np.abs(found - encoder.encode(["the wing"], prompt_name=prompt)).max() <= TOLERANCE
    assert np.abs(found - encoder.encode(["the wing"])).max() > 1e-3


def test_which_end_is_cut(running: Running, encoder: EmbeddingModel) -> None:
    text = "wing " * 62 + "heat " * 62
    for truncate, kept in (("end", "wing " * 62), ("start", "heat " * 62)):
        assert np.abs(vectors(running, input=text, truncate=truncate) - encoder.encode(kept)).max() <= TOLERANCE
    answer = running.post("/v1/embeddings", {"input": ["the", text], "truncate": "error"})
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "input[1] has 126 tokens, and the model takes 64.",
        "type": "invalid_request_error",
        "param": "input",
        "code": "too_long",
    }


def test_fields_of_jinas_api(running: Running, encoder: EmbeddingModel) -> None:
    text = "wing " * 62 + "heat " * 62
    options = {"embedding_type": "base64", "normalized": True, "truncate": True, "late_chunking": False}
    (entry,) = running.post("/v1/embeddings", {"input": text, **options}).json()["data"]
    assert isinstance(entry["embedding"], str)
    assert np.abs(decoded(entry["embedding"]) - encoder.encode("wing " * 62)).max() <= TOLERANCE
    answer = running.post("/v1/embeddings", {"input": ["the", text], "truncate": False})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_long")
    cut = vectors(running, input=["the wing"], dimensions=8, normalized=False)
    unit = vectors(running, input=["the wing"], dimensions=8, normalized=True)
    assert np.linalg.norm(unit) == pytest.approx(1) != np.linalg.norm(cut)
    assert np.abs(cut / np.linalg.norm(cut) - unit).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("body", "message", "param", "code"),
    [
        ({"input": []}, "input is empty", "input", "empty"),
        ({"input": "a", "late_chunking": True}, "late_chunking is not computed", "late_chunking", None),
        ({"input": "a", "embedding_type": "binary"}, "Invalid enum value", "embedding_type", None),
        ({"input": ""}, "input is empty", "input", "empty"),
        ({"input": ["a", ""]}, "input[1] is empty", "input", "empty"),
        ({"input": [[]]}, "input[0]", "input", "token_ids_not_accepted"),
        ({"input": ["a"] * 2049}, "input[2048]", "input", None),
        ({"input": [1, 2]}, "check_embedding_ctx_length=False", "input", "token_ids_not_accepted"),
        ({"input": [[1, 2]]}, "check_embedding_ctx_length=False", "input", "token_ids_not_accepted"),
        ({"input": ["a", 2]}, "input[1] is a token id", "input", None),
        ({"input": ["a", None]}, "Expected", "input[1]", None),
        ({"input": 3}, "Expected", "input", None),
        ({}, "missing required field `input`", None, None),
        ([], "Expected `object`", None, None),
        ({"input": "a", "dimensions": 33}, "1..32", "dimensions", None),
        ({"input": "a", "dimensions": 0}, "1..32", "dimensions", None),
        ({"input": "a", "dimensions": "3"}, "Expected `int", "dimensions", None),
        ({"input": "a", "encoding_format": "hex"}, "Invalid enum value", "encoding_format", None),
        ({"input": "a", "prompt_name": "passages"}, "['passage', 'query']", "prompt_name", None),
        ({"input": "a", "input_type": "title"}, "query", "input_type", None),
    ],
)
def test_what_is_refused(running: Running, body: Any, message: str, param: str | None, code: str | None) -> None:
    answer = running.post("/v1/embeddings", body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert message in error.pop("message")
    assert error == {"type": "invalid_request_error", "param": param, "code": code}


@pytest.mark.parametrize("body", [b"", b"{", b'{"input": "\xff"}', b'{"x": ' + b"[" * 100_000])
def test_a_body_that_is_no_json(running: Running, body: bytes) -> None:
    answer = httpx.post(running.url + "/v1/embeddings", content=body)
    assert answer.status_code == 400
    assert "no JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize("text", ["the \\ud83d", "\\ud83d, cut in its midst", "\\udc00", "\\ud83d\\u0041"])
def test_half_a_character_is_named(running: Running, text: str) -> None:
    body = b'{"input": ["the wing", "%s"]}' % text.encode()
    answer = httpx.post(running.url + "/v1/embeddings", content=body)
    assert answer.status_code == 400
    assert "half of a surrogate pair" in answer.json()["error"]["message"]
    answer = httpx.post(running.url + "/v1/embeddings", content=body[:-2])
    assert "no JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["text-embedding-3-small", "tiny-reranker"])
def test_an_unknown_model(running: Running, name: str) -> None:
    answer = running.post("/v1/embeddings", {"input": "a", "model": name})
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["code"] == "model_not_found"
    assert "org/Tiny-BERT" in error["message"]


def test_models(running: Running) -> None:
    listed = running.get("/v1/models").json()
    assert [entry["id"] for entry in listed["data"]] == ["org/Tiny-BERT", "tiny-reranker"]
    assert {entry["object"] for entry in listed["data"]} == {"model"}
    assert running.get("/v1/models/org/Tiny-BERT").json() == listed["data"][0]
    assert running.get("/v1/models/tiny-bert").json() == listed["data"][0]
    assert running.get("/v1/models/other").status_code == 404


def test_token_ids_where_they_are_taken(encoder: EmbeddingModel) -> None:
    with serving({"tiny": encoder}, accept_token_ids=True) as running:
        ids = encoder.tokenizer(["the wing", "flow"]).ids.tolist()
        assert np.abs(vectors(running, input=ids) - encoder.encode(["the wing", "flow"])).max() <= TOLERANCE
        assert np.abs(vectors(running, input=ids[0]) - encoder.encode(["the wing"])).max() <= TOLERANCE
        for wrong in ([10**6], [[1], [10**6]]):
            answer = running.post("/v1/embeddings", {"input": wrong})
            assert answer.status_code == 400
            assert "does not have" in answer.json()["error"]["message"]
        for wrong in ([-1], [2**40], [[1], []]):
            assert running.post("/v1/embeddings", {"input": wrong}).status_code == 400


def test_an_error_of_this_program_is_500_and_says_nothing_of_a_text(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a secret text")

    monkeypatch.setattr(Service, "contents", broken)
    answer = running.post("/v1/embeddings", {"input": "a"})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
