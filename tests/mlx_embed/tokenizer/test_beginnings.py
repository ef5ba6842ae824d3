"""Texts that are read up to where they are cut: the same ids, and what is said of their counts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers

from mlx_embed import EmbeddingModel, TruncationWarning
from mlx_embed.tokenizer import Tokenizer, beginnings
from tests.conftest import DATA
from tests.mlx_embed.tokenizer.checkpoints import edit, library, read
from tests.mlx_embed.tokenizer.strings import some_strings

# By class, as transformers' own look.
LIBRARIES = json.loads((DATA / "tokenizer_classes.json").read_text())["files"]


@pytest.mark.parametrize("max_length", [4, 9])
@pytest.mark.parametrize("name", ["bert", "mpnet", "roberta", "xlm-roberta", "camembert", "modernbert"])
def test_the_ids_are_those_of_whole_texts(
    name: str, max_length: int, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginnings, "LEAST", 4)
    monkeypatch.setattr(beginnings, "CHARACTERS", 2)
    config = replace(edit(checkpoint, **LIBRARIES[name]), tokenizer_config={})
    found = Tokenizer(config, max_length)
    assert found._breaks_at_spaces
    texts = [*some_strings(found.library, 5, 1500), "a " * 100, "a" * 100, " " * 100 + "b c", "", "the wing"]
    encoded = found.encode(texts, "the ", whole=False)
    made, expected = found.tokens(encoded), found(texts, "the ")
    assert made.ids.tolist() == expected.ids.tolist()
    assert ((made.counts > max_length) == (expected.counts > max_length)).all()
    assert (made.counts <= expected.counts).all()
    assert (made.counts < expected.counts).sum() > 100, "many are read in part"
    assert (made.whole, expected.whole) == (False, True)


def test_texts_of_common_length_are_read_whole() -> None:
    found = Tokenizer(read(), 8)
    made = found.encode(["the wing " * 900], whole=False)
    assert made.whole
    assert made.lengths.tolist() == [1802]
    made = found.encode(["the wing " * 9000, "a"], whole=False)
    assert not made.whole
    assert made.lengths.tolist()[0] < 1000
    assert made.lengths.tolist()[1] == found.encode(["a"]).lengths[0]


def test_the_end_of_a_text_is_read_where_it_counts() -> None:
    found = Tokenizer(read(tokenizer={"truncation_side": "left"}), 8)
    assert found.encode(["the wing " * 9000], whole=False).whole


def test_what_may_look_further_is_read_whole() -> None:
    found = library("tiny-bert")
    assert beginnings.breaks_at_spaces(found)
    found.add_tokens([AddedToken("the wing")])
    assert not beginnings.breaks_at_spaces(found)
    for name, part in (
        ("normalizer", normalizers.Replace(" ", "_")),
        ("pre_tokenizer", pre_tokenizers.Split(Regex("x"), "isolated")),
        ("pre_tokenizer", pre_tokenizers.ByteLevel(use_regex=False)),
        ("pre_tokenizer", None),
    ):
        found = library("tiny-bert")
        setattr(found, name, part)
        assert not beginnings.breaks_at_spaces(found)


def test_counts_are_there_where_they_are_asked_for() -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", max_seq_length=8)
    texts = ["the wing " * 9000, "a"]
    with pytest.warns(TruncationWarning, match=r"1 of 2 texts are .* \(the longest has \d{3} or more\)"):
        short = model.encode(texts)
    vectors, info = model.encode(texts, return_info=True)
    assert np.array_equal(vectors, short)
    assert info.token_counts.tolist() == model.token_counts(texts).tolist()
    assert info.token_counts[0] == 18002
    assert info.truncated.tolist() == [True, False]
    with pytest.raises(ValueError, match=r"texts\[0\] has 18002 tokens"):
        model.encode(texts, long_text="error")
    with pytest.warns(TruncationWarning, match=r"\(the longest has 18002\)"):
        EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", max_seq_length=8).encode(
            texts, return_info=True
        )


def test_a_text_ends_at_one_space_between_two_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several spaces may be one token."""
    monkeypatch.setattr(beginnings, "LEAST", 2)
    texts = ["aaa   bbb -c dd ee", "- " * 200 + "a b", "aaaaaaaa", "a b", "aaaaa b"]
    assert beginnings.of(texts, 0) == ["aaa   bbb -c", *texts[1:4], "aaaaa"]
