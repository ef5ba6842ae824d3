"""Texts to ids against the tokenizers library's own truncation; broken tokenizers; lengths and counts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from mlx_embed import CheckpointError, EmbeddingModel
from mlx_embed.checkpoint import read_checkpoint
from mlx_embed.tokenizer import Tokenizer
from mlx_embed.tokenizer.pairs import PairTokenizer
from mlx_embed.tokenizer.surrogates import well_formed
from tests.conftest import DATA, TINY
from tests.mlx_embed.tokenizer.checkpoints import edit, library, lists, read

TEXTS = ["", "the wing", "the wing flow heat layer index", "Naïve CAFÉ", "x" * 50, "日本 \U0001f600", "[SEP] a", " \n"]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [3, 5, 8, 64])
@pytest.mark.parametrize("name", TINY)
def test_truncation_is_that_of_the_library(name: str, max_length: int, side: str) -> None:
    expected = library(name)
    whole = [len(encoding.ids) for encoding in expected.encode_batch(TEXTS)]
    expected.enable_truncation(max_length, direction=side)
    found = Tokenizer(read(name, {"truncation_side": side}), max_length)(TEXTS)
    assert found.ids.tolist() == [encoding.ids for encoding in expected.encode_batch(TEXTS)]
    assert found.counts.tolist() == whole
    assert found.counts.dtype == np.int32
    assert found.chunks.tolist() == [1] * len(TEXTS)
    assert found.weights.tolist() == [1] * len(TEXTS)


@pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")
def test_truncation_side_of_the_checkpoint_reaches_the_vectors(checkpoint: Path) -> None:
    path = checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation_side": "left"}))
    model = EmbeddingModel.from_pretrained(checkpoint, device="cpu")
    long, end = model.encode(["heat " * 40 + "the wing " * 31, "the wing " * 31])
    assert np.abs(long - end).max() <= 1e-5


@pytest.mark.parametrize("said", [None, "right", "left"])
def test_the_side_that_tokenizer_json_cuts_at(said: str | None, checkpoint: Path) -> None:
    """It counts where tokenizer_config.json says nothing."""
    truncation = {"direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    found = edit(checkpoint, truncation=truncation)
    found = replace(found, tokenizer_config={**found.tokenizer_config, "truncation_side": said})
    expected = read(tokenizer={"truncation_side": said or "left"})
    assert Tokenizer(found, 5)(TEXTS).ids.tolist() == Tokenizer(expected, 5)(TEXTS).ids.tolist()
    pairs = list(zip(TEXTS, TEXTS, strict=True))
    assert lists(PairTokenizer(found, 8)(pairs)) == lists(PairTokenizer(expected, 8)(pairs))


def test_padding_and_truncation_of_tokenizer_json_do_not_count(checkpoint: Path) -> None:
    expected = Tokenizer(read_checkpoint(checkpoint), 64)(TEXTS).ids.tolist()
    padding = {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    truncation = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    assert Tokenizer(edit(checkpoint, padding=padding, truncation=truncation), 64)(TEXTS).ids.tolist() == expected


@pytest.mark.parametrize("prompt", ["", "query: ", "the wing", "\ud800 a"])
def test_prompts(prompt: str) -> None:
    found = Tokenizer(read(), 64)
    whole = [prompt.replace("\ud800", "\ufffd") + text for text in TEXTS]
    assert found(TEXTS, prompt).ids.tolist() == found(whole).ids.tolist()
    ids = library("tiny-bert").encode(prompt.replace("\ud800", "\ufffd")).ids
    assert found.prompt_length(prompt) == (len(ids) - 1 if prompt else 0), "[CLS] counts, [SEP] does not"
    assert found.room(prompt) == 64 - len(ids)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a \ud800 b", "a \ufffd b"),
        ("\udc00\ud800", "\ufffd\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ("x\ud83d", "x\ufffd"),
    ],
)
def test_surrogates(text: str, same: str) -> None:
    assert well_formed(text) == same
    found = Tokenizer(read(), 64)
    assert found([text]).ids.tolist() == found([same]).ids.tolist()
    assert found(["the", text, "wing"]).ids.tolist() == [
        *found(["the"]).ids.tolist(),
        *found([same]).ids.tolist(),
        *found(["wing"]).ids.tolist(),
    ]


@pytest.mark.parametrize("normalizer", [None, {"type": "NFC"}, {"type": "Lowercase"}])
@pytest.mark.parametrize("lower", [True, False])
def test_lowercasing(lower: bool, normalizer: dict[str, str] | None, checkpoint: Path) -> None:
    found = Tokenizer(replace(edit(checkpoint, normalizer=normalizer), do_lower_case=lower), 64)
    upper, plain = found(["THE WING"]).ids.tolist(), found(["the wing"]).ids.tolist()
    assert (upper == plain) == (lower or normalizer == {"type": "Lowercase"})


def test_no_special_tokens(checkpoint: Path) -> None:
    """Without a post-processor a text is its own tokens, and an empty one a row of none."""
    found = Tokenizer(edit(checkpoint, post_processor=None), 2)
    assert found(["the wing flow", ""]).ids.tolist() == [
        library("tiny-bert").encode("the wing", add_special_tokens=False).ids,
        [],
    ]
    assert found(["the wing flow", ""]).counts.tolist() == [3, 0]


def test_no_texts() -> None:
    found = Tokenizer(read(), 64)([])
    assert (found.ids.tolist(), found.counts.shape, found.chunks.shape, found.weights.shape) == ([], (0,), (0,), (0,))


def test_added_tokens_without_embeddings_are_forgotten(checkpoint: Path) -> None:
    """Gemma's tokenizer has one for images, behind the last of its embeddings."""
    tokens = json.loads((checkpoint / "tokenizer.json").read_text())["added_tokens"]
    more = [tokens[0] | {"id": 118 + i, "content": name} for i, name in enumerate(("<x>", "<y>", "<image>"))]
    found = edit(checkpoint, added_tokens=[*tokens, *more])
    assert Tokenizer(found, 64)(["<y>"]).ids.tolist() == [[2, 119, 3]]
    assert 120 in tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode("a <image>").ids
    texts = ["a <image> of the wing", "[SEP]", "<image>"]
    assert Tokenizer(found, 64)(texts).ids.tolist() == Tokenizer(read(), 64)(texts).ids.tolist()
    pairs = [(text, text) for text in texts]
    assert lists(PairTokenizer(found, 64)(pairs)) == lists(PairTokenizer(read(), 64)(pairs))


def test_max_id() -> None:
    assert Tokenizer(read(), 64).max_id() == max(library("tiny-bert").get_vocab().values())


@pytest.mark.parametrize("max_length", [0, 1, 2])
def test_a_maximum_that_leaves_no_room(max_length: int) -> None:
    with pytest.raises(CheckpointError, match=f"A maximum of {max_length} tokens leaves no room .* 2 special tokens"):
        Tokenizer(read(), max_length)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b'{"version": "1.0", "model": {"type": "Unheard"}}'],
)
def test_a_broken_tokenizer(content: bytes, checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is no tokenizer that this version of tokenizers reads"):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")


def test_a_missing_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    path = checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "BertTokenizer"}))
    with pytest.raises(CheckpointError, match=r"has neither tokenizer\.json nor vocab\.txt"):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")


def test_token_counts() -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", max_seq_length=4)
    expected = [len(encoding.ids) for encoding in library("tiny-bert").encode_batch(TEXTS)]
    assert model.token_counts(TEXTS).tolist() == expected
    assert model.token_counts(iter(TEXTS)).tolist() == expected
    assert model.token_counts("the wing").tolist() == [4]
    assert model.token_counts([]).shape == (0,)


def test_special_tokens_where_the_normalizer_leaves_nothing_of_a_letter(checkpoint: Path) -> None:
    gone = {"type": "Replace", "pattern": {"String": "a"}, "content": ""}
    found = Tokenizer(edit(checkpoint, normalizer=gone), 4)
    assert found(["the wing flow", "a"]).ids.tolist() == [
        library("tiny-bert").encode("the wing").ids,
        library("tiny-bert").encode("").ids,
    ]
