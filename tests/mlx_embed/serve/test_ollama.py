"""Ollama's routes, as far as its clients need them."""

from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from tests.mlx_embed.serve.harness import Running

TOLERANCE = 1e-5


def test_embed(running: Running, encoder: EmbeddingModel) -> None:
    body = {"model": "tiny-bert:latest", "input": ["the wing", "flow"], "keep_alive": "5m", "options": {}}
    answer = running.post("/api/embed", body).json()
    assert np.abs(np.array(answer["embeddings"]) - encoder.encode(body["input"])).max() <= TOLERANCE
    assert answer["model"] == "tiny-bert:latest"
    assert answer["prompt_eval_count"] == encoder.token_counts(body["input"]).sum()
    assert answer["total_duration"] > 0
    single = running.post("/api/embed", {"model": "tiny-bert", "input": "flow", "dimensions": 4}).json()
    assert np.abs(np.array(single["embeddings"]) - encoder.encode(["flow"], truncate_dim=4)).max() <= TOLERANCE


@pytest.mark.parametrize("body", [{}, {"input": ""}, {"input": []}])
def test_nothing_to_embed_asks_for_the_model(running: Running, body: Any) -> None:
    assert running.post("/api/embed", body | {"model": "tiny-bert"}).json()["embeddings"] == []


def test_the_old_route(running: Running, encoder: EmbeddingModel) -> None:
    answer = running.post("/api/embeddings", {"model": "tiny-bert", "prompt": "the wing"}).json()
    assert np.abs(np.array(answer["embedding"]) - encoder.encode("the wing")).max() <= TOLERANCE
    assert running.post("/api/embeddings", {"model": "tiny-bert", "prompt": ""}).json() == {"embedding": []}


def test_what_is_here(running: Running) -> None:
    for path in ("/api/tags", "/api/ps"):
        listed = running.get(path).json()["models"]
        assert [entry["model"] for entry in listed] == ["org/Tiny-BERT", "tiny-reranker"]
        assert all(entry["size"] > 1000 and len(entry["digest"]) == 64 for entry in listed)
    assert running.get("/api/version").json()["version"].count(".") == 2
    shown = running.post("/api/show", {"model": "tiny-bert"}).json()
    assert shown["capabilities"] == ["embedding"]
    assert shown["model_info"]["bert.embedding_length"] == 32
    assert running.post("/api/show", {"name": "tiny-reranker"}).json()["capabilities"] == []


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "other", "input": "a"}, 404, "model 'other' not found"),
        ({"input": "a"}, 400, "missing required field `model`"),
        ({"model": "tiny-bert", "input": [1]}, 400, "Expected `str`, got `int`"),
        ({"model": "tiny-bert", "input": "heat " * 99, "truncate": False}, 400, "101 tokens"),
    ],
)
def test_what_is_refused(running: Running, body: Any, status: int, message: str) -> None:
    answer = running.post("/api/embed", body)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert message in answer.json()["error"]
