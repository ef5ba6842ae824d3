"""What is longer than the model takes: cut at the end that is asked for, in each client's words, and said to be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from tests.mlx_embed.serve.harness import Running, serving, with_prompts


@pytest.mark.parametrize(("truncate", "kept"), [("end", slice(None, -3)), ("start", slice(3, None))])
def test_token_ids_are_cut_at_the_end_that_is_asked_for(encoder: EmbeddingModel, truncate: str, kept: slice) -> None:
    ids = [5 + i % 20 for i in range(encoder.max_seq_length + 3)]
    with serving({"tiny": encoder}, accept_token_ids=True) as running:
        body: dict[str, Any] = {"input": [ids, ids[kept]], "truncate": truncate}
        answer = running.post("/v1/embeddings", body).json()
    found, expected = (np.array(row["embedding"]) for row in answer["data"])
    assert np.abs(found - expected).max() < 1e-6
    assert answer["truncated"] == [0], "a text that just fits is not cut"


def test_token_ids_are_cut_where_texts_of_their_purpose_are(tmp_path: Path) -> None:
    folder = with_prompts(tmp_path / "model")
    changes = {"sentence_bert_config": {"query_length": 7}, "tokenizer_config": {"truncation_side": "left"}}
    for name, keys in changes.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    model = EmbeddingModel.from_pretrained(folder, device="cpu")
    ids = [5 + i % 20 for i in range(20)]
    with serving({"tiny": model}, accept_token_ids=True) as running:
        body: dict[str, Any] = {"input": [ids, ids[-7:]], "input_type": "query"}
        answer = running.post("/v1/embeddings", body).json()
        assert running.post("/v1/encode", {"texts": ["wing"], "task": "query"}).json()["max_tokens"] == 7
        assert running.post("/v1/encode", {"texts": ["wing"]}).json()["max_tokens"] == model.max_seq_length
    found, expected = (np.array(row["embedding"]) for row in answer["data"])
    assert np.abs(found - expected).max() < 1e-6
    assert (answer["truncated"], answer["usage"]["total_tokens"]) == ([0], 14)


@pytest.mark.parametrize(
    ("direction", "truncate"), [("left", "start"), ("Left", "start"), ("right", "end"), ("Right", "end")]
)
def test_directions_of_cutting(running: Running, encoder: EmbeddingModel, direction: str, truncate: str) -> None:
    text = "the wing " * encoder.max_seq_length + "heat"
    found = running.post("/embed", {"inputs": text, "truncation_direction": direction}).json()[0]
    body = {"input": text, "truncate": truncate}
    assert found == pytest.approx(running.post("/v1/embeddings", body).json()["data"][0]["embedding"], abs=1e-6)
    other = running.post("/v1/embeddings", body | {"truncate": {"start": "end", "end": "start"}[truncate]}).json()
    assert np.abs(np.array(found) - other["data"][0]["embedding"]).max() > 1e-3


@pytest.mark.parametrize(("truncate", "kept"), [("END", "wing "), ("START", "heat "), (None, "wing ")])
def test_coheres_ends(running: Running, encoder: EmbeddingModel, truncate: str | None, kept: str) -> None:
    body = {"texts": ["wing " * 62 + "heat " * 62], "truncate": truncate}
    found = running.post("/v2/embed", body).json()["embeddings"]["float"][0]
    assert found == pytest.approx(encoder.encode(kept * 62), abs=1e-5)
