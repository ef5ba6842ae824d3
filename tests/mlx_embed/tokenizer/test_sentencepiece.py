"""SentencePiece's own files, where there is no tokenizer.json: written by hand, and trained by its library."""

import base64
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlx_embed import CheckpointError
from mlx_embed.checkpoint import Checkpoint, read_checkpoint
from mlx_embed.tokenizer import files, sentencepiece
from tests.conftest import DATA, ROOT
from tests.mlx_embed.tokenizer.test_classes import charsmap

CLASSES = {"DebertaV2": "deberta-v2", "Albert": "albert", "T5": "t5"}
# Special pieces and their kinds: 2 is the unknown one's, 3 of what is added to a text, 4 of what the maker has given.
SPECIAL = {
    "DebertaV2": [("[PAD]", 3), ("[CLS]", 3), ("[SEP]", 3), ("[UNK]", 2)],
    "Albert": [("<pad>", 3), ("<unk>", 2), ("[CLS]", 3), ("[SEP]", 3), ("[MASK]", 4)],
    "T5": [("<pad>", 3), ("</s>", 3), ("<unk>", 2)],
}
WORDS = ["▁the", "▁wing", "▁heat", "▁of", "▁", "w", "9,", "9", ",", "e", "é"]


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def field(number: int, value: int | float | bytes) -> bytes:
    """A field as Protocol Buffers have it."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def proto(short: str, *, kind: int = 1, unknown: int | None = None) -> bytes:
    """A model's file: pieces, what trained it, how characters are read."""
    pieces = [*((text, 0.0, of) for text, of in SPECIAL[short]), *((w, -2.0 - i / 8, 1) for i, w in enumerate(WORDS))]
    place = next(place for place, (_, of) in enumerate(SPECIAL[short]) if of == 2)
    trainer = field(3, kind) + field(40, place if unknown is None else unknown)
    table = base64.b64decode(charsmap()["precompiled_charsmap"])
    parts = [field(1, field(1, text.encode()) + field(2, score) + field(3, of)) for text, score, of in pieces]
    return b"".join([*parts, field(2, trainer), field(3, field(1, b"own") + field(2, table))])


def checkpoint(folder: Path, short: str, data: bytes, **settings: Any) -> Checkpoint:
    """A folder that has nothing but such a file, as a checkpoint with room for every token."""
    (folder / sentencepiece.FILES[short]).write_bytes(data)
    tiny = read_checkpoint(DATA / "tiny-bert")
    encoder = replace(tiny.encoder_config, vocab_size=10**6)
    config = {"model_type": CLASSES[short]}
    return replace(tiny, transformer=folder, config=config, encoder_config=encoder, tokenizer_config=settings)


@pytest.mark.parametrize(
    ("short", "settings", "text", "tokens"),
    [
        ("DebertaV2", {}, " the  Wing ", ["[CLS]", "▁the", "▁wing", "[SEP]"]),
        ("DebertaV2", {}, "the [MASK]", ["[CLS]", "▁the", "[MASK]", "[SEP]"]),
        ("DebertaV2", {}, "é E", ["[CLS]", "▁", "é", "▁", "E", "[SEP]"]),
        ("DebertaV2", {"do_lower_case": True}, "é E", ["[CLS]", "▁", "é", "▁", "e", "[SEP]"]),
        ("DebertaV2", {"split_by_punct": True}, "9,", ["[CLS]", "▁", "9", "▁", ",", "[SEP]"]),
        ("Albert", {}, "The Wing é", ["[CLS]", "▁the", "▁wing", "▁", "e", "[SEP]"]),
        ("Albert", {"keep_accents": True}, "É", ["[CLS]", "▁", "é", "[SEP]"]),
        ("Albert", {}, "9,", ["[CLS]", "▁", "9", ",", "[SEP]"]),
        ("T5", {}, "the Wing", ["▁the", "▁wing", "</s>"]),
        ("T5", {}, "9, <extra_id_0>", ["▁", "9,", "<extra_id_0>", "</s>"]),
    ],
)
def test_tokens(short: str, settings: dict[str, Any], text: str, tokens: list[str], tmp_path: Path) -> None:
    source = files.read(checkpoint(tmp_path, short, proto(short), **settings))
    assert source.tokenizer.encode(text).tokens == tokens
    assert source.token_types == (short == "DebertaV2")


def test_ids_of_what_is_added(tmp_path: Path) -> None:
    library = files.read(checkpoint(tmp_path, "T5", proto("T5"))).tokenizer
    assert [library.token_to_id(f"<extra_id_{number}>") for number in (99, 0)] == [14, 113]
    assert library.get_vocab_size() == 114


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no Unigram model of SentencePiece"),
        (b"{}", "is no model of SentencePiece"),
        (proto("T5")[:-9], "is no model of SentencePiece"),
        (proto("T5", kind=2), "no Unigram model"),
        (proto("T5", unknown=99), "no Unigram model"),
        (field(1, field(2, 1.0)), "is no model of SentencePiece"),
        (field(1, field(1, b"\xff")), "is no model of SentencePiece"),
    ],
)
def test_what_is_no_model(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        files.read(checkpoint(tmp_path, "T5", data))


TEXTS = [
    *("the Wing of a batch", " heat  of  it ", "café naïve", "中国 wing", "it's <mask>[MASK] x", "x[SEP]</s> y", ""),
    *(
        "tab\tnew\nline\r\nend",
        "``quoted'' “text”",
        "<extra_id_0> and <extra_id_99>",
        "🙂 ok",
        "▁under",
    ),
]
# What transformers 5 reads otherwise than SentencePiece, for DeBERTa: see docs/checkpoints.md.
ODD = ["１２ ﬁ ™", "a\u00a0b", "\u3000wide", "a\u2028b"]
TRAINED: dict[str, dict[str, Any]] = {
    "DebertaV2": {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "bos_piece": "[CLS]", "eos_piece": "[SEP]"}
    | {"pad_piece": "[PAD]", "unk_piece": "[UNK]"},
    "Albert": {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": "[CLS],[SEP]"}
    | {"user_defined_symbols": "[MASK]"},
    "T5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
}


@pytest.mark.parametrize("short", TRAINED)
def test_live(short: str, tmp_path: Path) -> None:
    """As transformers reads the same file, and what it then saves; DeBERTa's characters as SentencePiece itself."""
    transformers = pytest.importorskip("transformers", reason="PyTorch oracles are not installed")
    library = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    (tmp_path / "texts.txt").write_text((ROOT / "docs" / "models.md").read_text() + "\n".join([*TEXTS, *ODD]))
    model = tmp_path / sentencepiece.FILES[short].removesuffix(".model")
    library.SentencePieceTrainer.train(
        input=str(tmp_path / "texts.txt"), model_prefix=str(model), vocab_size=600, minloglevel=2, **TRAINED[short]
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": CLASSES[short]}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    bare = checkpoint(tmp_path, short, model.with_suffix(".model").read_bytes())
    ours = files.read(bare).tokenizer
    texts = TEXTS if short == "DebertaV2" else [*TEXTS, *ODD]
    assert [ours.encode(text).ids for text in texts] == [theirs(text)["input_ids"] for text in texts]
    if short == "DebertaV2":
        truth = library.SentencePieceProcessor(model_file=str(model.with_suffix(".model")))
        assert [ours.encode(text).ids[1:-1] for text in ODD] == [truth.encode(text) for text in ODD]
    theirs.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    saved = files.read(replace(bare, tokenizer_config=settings)).tokenizer
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [saved.encode(text).ids for text in [*TEXTS, *ODD]] == [again(text)["input_ids"] for text in [*TEXTS, *ODD]]
