"""What is longer than the model takes: cut at the end that is asked for, in each client's words, and said to be."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel
from mlx_embed.serve import models, reranker
from mlx_embed.tokenizer import Tokenizer
from mlx_embed.tokenizer.pairs import PairTokenizer
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


def test_of_texts_that_are_far_too_long_a_beginning_is_read(
    running: Running, encoder: EmbeddingModel, cross_encoder: CrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer would take 200 bytes for each character, and seconds, while all others wait."""
    monkeypatch.setattr(models, "TOGETHER", 20_000)
    monkeypatch.setattr(reranker, "TOGETHER", 20_000)
    read: list[int] = []

    def made(self: Tokenizer, contents: list[str]) -> Any:
        read.append(sum(map(len, contents)))
        return whole(self, contents)

    whole = Tokenizer._made
    monkeypatch.setattr(Tokenizer, "_made", made)
    library = cross_encoder.tokenizer.library

    class Recording:
        def encode(self, text: str, **options: Any) -> Any:
            read.append(len(text))
            return library.encode(text, **options)

        def encode_batch(self, texts: list[str], **options: Any) -> Any:
            read.append(sum(map(len, texts)))
            return library.encode_batch(texts, **options)

    monkeypatch.setattr(PairTokenizer, "library", Recording())
    long, others = "the wing " * 30_000, ["heat " * 1_500] * 9
    answer = running.post("/v1/embeddings", {"input": ["heat", long, *others, "wing"]}).json()
    assert answer["truncated"] == list(range(1, 11))
    assert max(read) <= 20_000
    assert sum(read) > 9 * len(others[0]), "of these all tokens are counted"
    found = np.array([row["embedding"] for row in answer["data"]])
    assert np.abs(found - encoder.encode(["heat", long, *others, "wing"])).max() <= 1e-5
    refused = running.post("/v1/embeddings", {"input": [others[0], long], "truncate": "error"}).json()
    assert re.search(r"input\[0\] has 1502 tokens, and the model takes 64", refused["error"]["message"])
    refused = running.post("/v1/embeddings", {"input": long, "truncate": "error"}).json()
    assert re.search(r"input\[0\] has \d+ or more tokens, and the model takes 64", refused["error"]["message"])
    read.clear()
    ranked = running.post("/rerank", {"query": long, "documents": [long, "heat", others[0]]}).json()["results"]
    assert max(read) <= 60_000
    expected = cross_encoder.predict([(long, document) for document in (long, "heat", others[0])])
    assert [one["relevance_score"] for one in ranked] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
