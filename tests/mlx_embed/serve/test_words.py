"""What a refusal calls a text is what the route's own request calls it."""

from typing import Any

import pytest

from tests.mlx_embed.serve.harness import Running

LONG = "the wing " * 99


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/embeddings", {"input": ["a", LONG], "truncate": "error"}, "input[1] has 200 tokens"),
        ("/embed", {"inputs": ["a", LONG], "truncate": False}, "inputs[1] has 200 tokens"),
        ("/embed", {"inputs": ""}, "inputs is empty"),
        ("/embed_all", {"inputs": ["a", LONG], "truncate": False}, "inputs[1] has 200 tokens"),
        ("/embed", {"inputs": ["a"], "dimensions": 99}, "dimensions 99"),
        ("/", {"inputs": ["a", LONG], "truncate": False}, "inputs[1] has 200 tokens"),
        (
            "/similarity",
            {"inputs": {"source_sentence": "", "sentences": ["a"]}},
            "inputs.source_sentence is empty",
        ),
        (
            "/similarity",
            {"inputs": {"source_sentence": "a", "sentences": ["a", LONG]}, "parameters": {"truncate": False}},
            "inputs.sentences[1] has 200 tokens",
        ),
        (
            "/similarity",
            {"inputs": {"source_sentence": LONG, "sentences": ["a"]}, "parameters": {"truncate": False}},
            "inputs.source_sentence has 200 tokens",
        ),
        ("/v2/embed", {"texts": ["a", LONG], "truncate": "NONE"}, "texts[1] has 200 tokens"),
        ("/v2/embed", {"texts": ["a"], "output_dimension": 99}, "output_dimension 99"),
        (
            "/v2/embed",
            {"inputs": [{"content": [{"type": "text", "text": LONG}]}], "truncate": "NONE"},
            "inputs[0] has 200 tokens",
        ),
        ("/api/embed", {"model": "default", "input": ["a", LONG], "truncate": False}, "input[1] has 200 tokens"),
        ("/v1/encode", {"texts": ["a"], "truncate_dim": 99}, "truncate_dim 99"),
        ("/v1/encode", {"texts": ["a"] * 2049}, "texts has 2049"),
        ("/rerank", {"query": "a", "texts": []}, "texts is empty"),
        ("/rerank", {"query": "a", "documents": []}, "documents is empty"),
        ("/rerank", {"query": "a", "texts": ["a"] * 2049}, "texts has 2049 texts"),
        ("/rerank", {"query": "a", "texts": ["a", LONG], "truncate": False}, "texts[1] has "),
        ("/predict", {"inputs": [["a", "b"], ["a", LONG]], "truncate": False}, "inputs[1] has "),
        ("/predict", {"inputs": ["a", LONG], "truncate": False}, "inputs has "),
        ("/tokenize", {"inputs": ["a", ""]}, "inputs[1] is empty"),
        ("/decode", {"ids": []}, "ids needs"),
    ],
)
def test_a_refusal_has_the_requests_own_words(running: Running, path: str, body: dict[str, Any], message: str) -> None:
    answer = running.post(path, body)
    assert 400 <= answer.status_code < 500, answer.text
    assert message in answer.text
    error = answer.json().get("error")
    if isinstance(error, dict):
        assert error["param"] in body
