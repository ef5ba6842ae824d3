"""Pairs of texts to ids and types, against the tokenizers library's own truncation."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

from custom_kernels import cpu
from mlx_embed import CheckpointError
from mlx_embed.checkpoint import read_checkpoint
from mlx_embed.tokenizer import beginnings
from mlx_embed.tokenizer.pairs import PairTokenizer
from tests.conftest import TINY
from tests.mlx_embed.tokenizer.checkpoints import cuts_as_ever, edit, library, lists, read

ENDS = [("[CLS]", 2), ("[SEP]", 3)]
PROCESSORS: dict[str, Any] = {
    "none": None,
    "roberta": processors.RobertaProcessing(ENDS[1], ENDS[0]),
    "behind": processors.TemplateProcessing("$A:0 [SEP]:0 [CLS]:2", "$A:0 [SEP]:0 $B:1 [SEP]:1 [CLS]:2", ENDS),
    "first is of type 1": processors.TemplateProcessing("$A:1", "$A:1 [SEP]:1 [SEP]:0 $B:0", ENDS),
}


def words(rng: random.Random, most: int) -> str:
    return " ".join(rng.choices(("the", "wing", "flow", "heat", "a", "layers,"), k=rng.randrange(most)))


@pytest.mark.parametrize("side", ["right", "left"])
def test_pairs_are_cut_as_the_library_does(side: str) -> None:
    expected = library("tiny-bert")
    expected.enable_truncation(8, direction=side)
    pairs = [("the wing", "flow"), ("the wing flow heat layer", "a"), ("a", "the wing flow heat layer"), ("", "")]
    ids, types = lists(PairTokenizer(read(tokenizer={"truncation_side": side}), 8)(pairs))
    assert ids == [encoding.ids for encoding in expected.encode_batch(pairs)]
    assert types == [encoding.type_ids for encoding in expected.encode_batch(pairs)]
    assert max(map(len, ids)) == 8
    tokenizer = PairTokenizer(read(), 8)
    assert lists(tokenizer([("\ud800", "a")])) == lists(tokenizer([("\ufffd", "a")]))
    with pytest.raises(CheckpointError, match="A maximum of 3 tokens leaves no room"):
        PairTokenizer(read(), 3)


def random_pairs(seed: int) -> list[tuple[str, str]]:
    """Some of them have a query that comes again."""
    rng = random.Random(seed)
    queries = [words(rng, 14) for _ in range(8)]
    return [(rng.choice(queries), words(rng, 14)) for _ in range(60)] + [("", ""), ("", "the wing"), ("flow", "")]


def cut_by_the_library(name: str, most: int, side: str, pairs: list[tuple[str, str]], prompt: str) -> Any:
    found = library(name)
    found.enable_truncation(most, direction=side)
    made = found.encode_batch([(prompt + query, document) for query, document in pairs])
    return [[x.ids for x in made], [x.type_ids for x in made]]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("most", [5, 9, 16, 17, 500])
@pytest.mark.parametrize("name", TINY)
def test_random_lengths(name: str, most: int, side: str) -> None:
    tokenizer, pairs = PairTokenizer(read(name, {"truncation_side": side}), most), random_pairs(most)
    assert lists(tokenizer(pairs, "the wing ")) == cut_by_the_library(name, most, side, pairs, "the wing ")
    assert lists(tokenizer([])) == [[], []]


@cuts_as_ever
def test_through_what_is_fast() -> None:
    tokenizer, pairs = PairTokenizer(read(), 16), random_pairs(3)
    assert tokenizer.fast is not None
    tokenizer.fast.prepare()
    assert tokenizer.fast.active or not cpu.available()
    assert lists(tokenizer(pairs)) == cut_by_the_library("tiny-bert", 16, "right", pairs, "")


@pytest.mark.parametrize("most", [6, 7, 64])
@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_every_kind_of_post_processor(kind: str, special: bool, most: int, checkpoint: Path) -> None:
    expected: Any = library("tiny-bert")
    expected.post_processor = PROCESSORS[kind]
    found = edit(checkpoint, post_processor=json.loads(expected.to_str())["post_processor"])
    if not special:
        (checkpoint / "sentence_bert_config.json").write_text(
            '{"processing_kwargs": {"text": {"add_special_tokens": false}}}'
        )
        found = read_checkpoint(checkpoint)
        assert not found.special_tokens
    expected.enable_truncation(most)
    pairs = [("the wing", "flow"), ("the wing flow heat", "a wing"), ("", ""), ("a", "the wing flow heat " * 9)]
    made = expected.encode_batch(pairs, add_special_tokens=special)
    assert lists(PairTokenizer(found, most)(pairs)) == [[x.ids for x in made], [x.type_ids for x in made]]


@cuts_as_ever
@pytest.mark.parametrize("most", [9, 10])
def test_far_too_long_texts(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are read whole where it matters which of them is the longer."""
    monkeypatch.setattr(beginnings, "CHARACTERS", 8)
    monkeypatch.setattr(beginnings, "LEAST", 8)
    expected = library("tiny-bert")
    expected.enable_truncation(most)
    pairs = [("the wing " * n, "flow heat " * m) for n, m in ((40, 35), (35, 40), (2, 40), (40, 1))]
    assert lists(PairTokenizer(read(), most)(pairs))[0] == [encoding.ids for encoding in expected.encode_batch(pairs)]


def test_a_query_is_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = PairTokenizer(read(), 16)
    given: list[str] = []
    encode = tokenizer._texts.encode
    monkeypatch.setattr(
        tokenizer._texts, "encode", lambda texts, **options: given.extend(texts) or encode(texts, **options)
    )
    tokenizer([("the wing", "flow"), ("the wing", "heat"), ("a", "flow")], "a ")
    assert given == ["a the wing", "a a", "flow", "heat", "flow"]


def test_a_post_processor_that_turns_texts_round(checkpoint: Path) -> None:
    turned: Any = library("tiny-bert")
    turned.post_processor = processors.TemplateProcessing("$A", "$B $A", [])
    found = edit(checkpoint, post_processor=json.loads(turned.to_str())["post_processor"])
    with pytest.raises(CheckpointError, match="post-processor that changes the tokens of a pair's texts"):
        PairTokenizer(found, 16)
