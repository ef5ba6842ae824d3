"""Tokenizers that the library cannot run: said when they are loaded, or at the latest by an error that names them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from mlx_embed import CheckpointError, EmbeddingModel
from mlx_embed.checkpoint import read_checkpoint
from mlx_embed.tokenizer.pairs import PairTokenizer
from tests.conftest import DATA


def load(folder: Path, **changes: Any) -> EmbeddingModel:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return EmbeddingModel.from_pretrained(folder, device="cpu")


def charsmap(content: bytes) -> dict[str, str]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": charsmap(b"\xff\xff\xff\xff")},
        {"normalizer": charsmap(b"\x04\0\0\0\1\2\3\4abc")},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!!!"}},
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        },
    ],
    ids=["a table that is cut", "a table that points outside", "no base64", "a token that is not there"],
)
def test_a_panic_in_the_library(changes: dict[str, Any], checkpoint: Path) -> None:
    """It comes as a BaseException, which no `except Exception` of a caller sees."""
    with pytest.raises(CheckpointError, match="checkpoint"):
        load(checkpoint, **changes)


def test_a_panic_of_pairs(checkpoint: Path) -> None:
    """Single texts go through, so that only a reranker meets it."""
    lost = [{"SpecialToken": {"id": "x", "type_id": 0}}, *({"Sequence": {"id": i, "type_id": 0}} for i in "AB")]
    kept = [{"Sequence": {"id": "A", "type_id": 0}}]
    load(checkpoint, post_processor={"type": "TemplateProcessing", "single": kept, "pair": lost, "special_tokens": {}})
    with pytest.raises(CheckpointError, match=r"The tokenizer of .*checkpoint.* is broken"):
        PairTokenizer(read_checkpoint(checkpoint), 16)


VOCABULARY = json.loads((DATA / "tiny-bert/tokenizer.json").read_text())["model"]["vocab"]
SCORED = [[token, -1.0] for token in sorted(VOCABULARY, key=VOCABULARY.__getitem__)]


@pytest.mark.parametrize(
    "model",
    [
        {"type": "WordPiece", "vocab": VOCABULARY, "unk_token": "[NO]", "max_input_chars_per_word": 100},
        {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "[NO]"},
        {"type": "BPE", "vocab": VOCABULARY, "merges": [], "unk_token": "[NO]"},
        {"type": "Unigram", "vocab": SCORED, "unk_id": None},
    ],
    ids=lambda model: model["type"],
)
def test_an_unknown_token_that_is_not_in_the_vocabulary(model: dict[str, Any], checkpoint: Path) -> None:
    """The first text with an unknown character used to fail, which might be months later."""
    if model["type"] == "WordPiece":
        model = model | {"continuing_subword_prefix": "##"}
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has no token for what its vocabulary lacks"):
        load(checkpoint, model=model)


def test_characters_that_are_dropped_are_no_fault(checkpoint: Path) -> None:
    """BPE without an unknown token leaves them out."""
    model = load(checkpoint, model={"type": "BPE", "vocab": VOCABULARY, "merges": [], "unk_token": None})
    assert model.encode("\u3042").shape == (32,)


def test_a_panic_while_texts_are_tokenized(tiny_bert: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    class Broken:
        def encode_batch_fast(self, *_: Any, **__: Any) -> None:
            raise PanicException("index out of bounds")

    monkeypatch.setattr(tiny_bert.tokenizer, "fast", None)
    monkeypatch.setattr(tiny_bert.tokenizer, "_tokenizer", Broken())
    with pytest.raises(CheckpointError, match=r"The tokenizer of .*tiny-bert is broken: index out of bounds"):
        tiny_bert.encode("the wing")
