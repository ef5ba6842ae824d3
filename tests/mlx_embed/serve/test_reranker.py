"""Rerankers of another kind than the server's other tests have: decoders with a classifier, and tokens of bytes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from mlx_embed import CrossEncoder
from mlx_embed.serve.reranker import Reranker
from tests.checkpoints import classifier
from tests.mlx_embed.serve.harness import random_texts, serving

TOLERANCE = 1e-4
LONG = "heat " * 99


@pytest.mark.parametrize("name", ["qwen3", "llama, the end is padding", "qwen3, chat"])
def test_decoders_with_a_classifier(name: str, tmp_path: Path) -> None:
    model = CrossEncoder.from_pretrained(classifier(name, tmp_path), device="cpu")
    texts = [*random_texts(6, 12), "heat [PAD]", LONG]
    scores = model.predict([("the wing", text) for text in texts])
    with serving({}, {"tiny": model}) as running:
        found = running.post("/rerank", {"query": "the wing", "texts": texts}).json()
        ranked = running.post("/v2/rerank", {"query": "the wing", "documents": texts, "top_n": 3}).json()["results"]
        fits: dict[str, Any] = {"query": "the wing", "texts": texts[:-1], "truncate": False}
        assert running.post("/rerank", fits).status_code == 200
        # What is padding at the end of all pairs does not hide that one was cut.
        answer = running.post("/rerank", fits | {"texts": [LONG]})
    assert len(found) == len(texts)
    for entry in found:
        assert entry["score"] == pytest.approx(scores[entry["index"]], abs=TOLERANCE)
    assert [entry["relevance_score"] for entry in ranked] == pytest.approx(sorted(scores)[:-4:-1], abs=TOLERANCE)
    assert answer.status_code == 422
    assert "tokens" in answer.json()["error"]


def test_several_labels(tmp_path: Path) -> None:
    model = CrossEncoder.from_pretrained(classifier("qwen3, labels", tmp_path), device="cpu")
    pairs = [["the wing", "flow"], ["heat", "code [PAD]"]]
    logits = model.predict(pairs, activation="Identity")
    with serving({}, {"tiny": model}) as running:
        found = running.post("/predict", {"inputs": pairs, "raw_scores": True}).json()
    for row, expected in zip(found, logits, strict=True):
        assert {entry["label"]: entry["score"] for entry in row} == pytest.approx(
            {f"L{i}": float(x) for i, x in enumerate(expected)}, abs=TOLERANCE
        )


@pytest.mark.parametrize(
    ("most", "beginning", "end"),
    [
        (1, "", "b"),
        (2, "", "b"),
        (3, "日", "b"),
        (4, "日", "本b"),
        (5, "日", "本b"),
        (6, "日本", "本b"),
        (7, *["日本b"] * 2),
    ],
)
def test_documents_whose_characters_have_several_tokens(most: int, beginning: str, end: str) -> None:
    """Tokens of bytes: fewer characters than `max_tokens_per_doc` may be more tokens, and none is cut in two."""
    alphabet = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    library = Tokenizer(models.BPE(alphabet, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert len(library.encode("日本b").ids) == 7
    reranker: Any = object.__new__(Reranker)
    for cut_left, kept in ((False, beginning), (True, end)):
        reranker.model = SimpleNamespace(tokenizer=SimpleNamespace(library=library, cut_left=cut_left))
        assert reranker._cut("日本b", most) == (kept, 7)
