"""Ids put together from those of pieces: the library's own, whatever the tokenizer, the text and the memory."""

import threading
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

from custom_kernels import cpu
from custom_kernels.cpu.pieces import PieceMemory
from mlx_embed.tokenizer import framed, pieces
from mlx_embed.tokenizer.pieces import PieceTokenizer, known
from tests.conftest import TINY
from tests.mlx_embed.tokenizer import trained
from tests.mlx_embed.tokenizer.checkpoints import library
from tests.mlx_embed.tokenizer.strings import strings

pytestmark = pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")

TEXTS = [
    "the wing",
    "",
    " ",
    "  the  wing ",
    "the\nwing \n stalls",
    "a\0b c",
    "<mask> a <mask>b",
    "x" * 600 + " the wing",
]


def loaded(name: str) -> tokenizers.Tokenizer:
    return library(name) if name in TINY else trained.library(name)


def made(found: tokenizers.Tokenizer) -> PieceTokenizer:
    return PieceTokenizer(found, framed(found))


class Asked:
    """A library that writes down what it is asked."""

    def __init__(self, found: tokenizers.Tokenizer, asked: list[str]) -> None:
        self.found, self.asked = found, asked

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> Any:
        self.asked.extend(texts)
        return self.found.encode_batch_fast(texts, add_special_tokens=add_special_tokens)


def ids(found: Any, texts: list[str]) -> list[list[int]]:
    rows = (
        found(texts, whole=True)
        if isinstance(found, PieceTokenizer)
        else [x.ids for x in found.encode_batch_fast(texts)]
    )
    return [list(map(int, row)) for row in rows]


@pytest.mark.parametrize("name", [*TINY, *trained.KINDS])
def test_random_strings(name: str) -> None:
    found = loaded(name)
    assert known(found)
    fast = made(found)
    texts = list(islice(strings(found, 17), 800)) + TEXTS
    expected = ids(found, texts)
    assert ids(fast, texts) == expected
    assert ids(fast, texts[::-1]) == expected[::-1], "from memory"
    assert [ids(fast, [text])[0] for text in texts[:50]] == expected[:50]


def test_of_known_pieces_the_library_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = trained.library("xlm-roberta")
    fast = made(found)
    asked: list[str] = []
    monkeypatch.setattr(fast, "_library", Asked(found, asked))
    fast(["the wing stalls", "the wing"])
    assert asked == ["the", " wing", " stalls"]
    fast(["the stalls wing"] * 10)
    assert len(asked) == 3


def test_what_is_mostly_new_is_left_to_the_library_and_learnt_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "CREDIT", 20_000)
    found = trained.library("roberta")
    fast = made(found)
    texts = [f"{'word' * (n % 7)}{n * 7919:x} {n * n:x}" for n in range(600)]
    seen = [fast(texts) is not None for _ in range(40)]
    assert not seen[0]
    assert seen[-1], "after some rounds all of it is known"
    assert ids(fast, texts) == ids(found, texts)


def test_what_does_not_come_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "CREDIT", 20_000)
    found = trained.library("roberta")
    fast, again = made(found), made(found)
    new = [[f"{turn * 7919:x}{n * n * n:x} {n * turn:x}-x" for n in range(100)] for turn in range(1, 40)]
    assert [fast(texts) is None for texts in new][-10:] == [True] * 10
    assert all(again(["the wing stalls"] * 100) is not None for _ in range(40))


def test_many_threads_and_a_small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory that is emptied under other threads gives right ids, or leaves them to the library."""
    monkeypatch.setattr(pieces, "CAPACITY", 50)
    found = trained.library("roberta")
    fast = made(found)
    rng = np.random.default_rng(3)
    windows = [[" ".join(map(str, rng.integers(0, 3000, 8))) for _ in range(20)] for _ in range(12)]
    expected = [ids(found, window) for window in windows]
    wrong: list[Any] = []
    answered: list[int] = []

    def run(start: int) -> None:
        for turn in range(40):
            place = (start + turn) % len(windows)
            rows = fast(windows[place], whole=True)
            if rows is not None:
                answered.append(place)
                if rows.tolist() != expected[place]:
                    wrong.append(place)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert answered


def test_a_window_for_every_thread() -> None:
    """Texts enough that each of several threads reads a part of them."""
    found = trained.library("roberta")
    texts = [f"the wing {number % 50} stalls at {number % 7}" * 20 for number in range(700)]
    memory = PieceMemory(1000, (0,), (2,))
    joined = "\0".join(texts).encode()
    fast = made(found)
    expected = ids(fast, texts)
    starts, stops, whole = memory.unknown(joined, len(texts), len(joined))
    assert whole
    rows = [
        found.encode(joined[a:b].decode(), add_special_tokens=False).ids for a, b in zip(starts, stops, strict=True)
    ]
    offsets = np.cumsum([0, *map(len, rows)])
    memory.learn(
        joined,
        starts,
        stops,
        np.fromiter(chain.from_iterable(rows), np.int32),
        offsets,
        np.zeros(len(rows), bool),
        renew=True,
    )
    for threads in (1, 2, 3, 8):
        answer = memory.read(joined, len(texts), threads)
        assert answer is not None
        flat, lengths = answer
        assert [row.tolist() for row in np.split(flat, np.cumsum(lengths)[:-1])] == expected
    assert expected == ids(found, texts)


def test_the_unknown_token_as_such_and_as_what_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text with characters that the vocabulary has not is put together too; only "<unk>" itself is left."""
    found = trained.library("xlm-roberta")
    fast = made(found)
    texts = ["\u5b57 the wing", "the \u5b57\u5b57wing", "the <unk> wing", "the <unk>wing", "\uff1cunk\uff1e the"]
    assert ids(fast, texts) == ids(found, texts)
    asked: list[str] = []
    monkeypatch.setattr(fast, "_library", Asked(found, asked))
    fast(texts)
    assert asked == texts[2:]


def unlike() -> list[Any]:
    def change(name: str, value: Any) -> Any:
        return lambda found: setattr(found, name, value)

    return [
        change("pre_tokenizer", None),
        change("pre_tokenizer", pre_tokenizers.Metaspace(split=False)),
        change("pre_tokenizer", pre_tokenizers.ByteLevel(use_regex=False)),
        change("pre_tokenizer", pre_tokenizers.Split(Regex(r"\w+ \w+"), "isolated")),
        change("pre_tokenizer", pre_tokenizers.Split(Regex(trained.QWEN), "merged_with_next")),
        change("normalizer", normalizers.Prepend("▁")),
        change("normalizer", normalizers.Strip()),
        change("normalizer", normalizers.Replace("the wing", "x")),
        change("normalizer", normalizers.Replace(Regex(r"\s+$"), "")),
        change("encode_special_tokens", True),
        change("model", models.BPE(dropout=0.1)),
        lambda found: found.add_tokens([AddedToken("the wing")]),
    ]


@pytest.mark.parametrize("change", unlike())
def test_what_may_look_further_is_not_known(change: Any) -> None:
    found = trained.library("roberta")
    assert known(found)
    change(found)
    assert not known(found)


@pytest.mark.parametrize(
    "side", [{"rstrip": True}, {"lstrip": True}, {"single_word": True}, {"normalized": True}], ids=str
)
def test_added_tokens(side: Any) -> None:
    found = trained.library("albert")
    found.add_tokens([AddedToken("stall", **side)])
    texts = ["the stall  wing", "stall", "a STALL b", "stalls stall", "xstall the", "the wing"]
    assert ids(made(found), texts) == ids(found, texts)
