"""Ids put together from those of pieces: the library's own, whatever the tokenizer, the text and the memory."""

import io
import random
import threading
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

from custom_kernels import cpu
from custom_kernels.cpu.pieces import PieceMemory
from mlx_embed.tokenizer import framed, pieces, subwords
from mlx_embed.tokenizer.pieces import PieceTokenizer, known
from tests.conftest import TINY
from tests.mlx_embed.tokenizer import trained
from tests.mlx_embed.tokenizer.checkpoints import library
from tests.mlx_embed.tokenizer.composed import composed
from tests.mlx_embed.tokenizer.strings import some_strings

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


@pytest.fixture
def no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave whatever is new to the library."""
    monkeypatch.setattr(subwords, "rules", lambda library, model: None)


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
    texts = some_strings(found, 17, 800) + TEXTS
    expected = ids(found, texts)
    assert ids(fast, texts) == expected
    assert ids(fast, texts[::-1]) == expected[::-1], "from memory"
    assert [ids(fast, [text])[0] for text in texts[:50]] == expected[:50]


@pytest.mark.parametrize("first", [20, 7690, 8138, 9440, 10150, 10880])
def test_tokenizers_put_together_at_random(first: int) -> None:
    """Whatever is known makes the library's ids; scripts/fuzz_tokenizer.py tries thousands."""
    found = [composed(random.Random(seed)) for seed in range(first, first + 14)]
    taken = [one for one in found if known(one)]
    assert taken
    for place, one in enumerate(taken):
        texts = some_strings(one, place, 40)
        assert ids(made(one), texts) == ids(one, texts)


def test_of_known_pieces_the_library_is_not_asked(monkeypatch: pytest.MonkeyPatch, no_rules: None) -> None:
    found = trained.library("xlm-roberta")
    fast = made(found)
    asked: list[str] = []
    monkeypatch.setattr(fast, "_library", Asked(found, asked))
    fast(["the wing stalls", "the wing"])
    assert asked == ["the", " wing", " stalls"]
    fast(["the stalls wing"] * 10)
    assert len(asked) == 3


def test_what_is_mostly_new_is_left_to_the_library_and_learnt_in_parts(
    monkeypatch: pytest.MonkeyPatch, no_rules: None
) -> None:
    monkeypatch.setattr(pieces, "CREDIT", 20_000)
    found = trained.library("roberta")
    fast = made(found)
    texts = [f"{'word' * (n % 7)}{n * 7919:x} {n * n:x}" for n in range(600)]
    seen = [fast(texts) is not None for _ in range(40)]
    assert not seen[0]
    assert seen[-1], "after some rounds all of it is known"
    assert ids(fast, texts) == ids(found, texts)


def test_what_does_not_come_again_is_given_up(monkeypatch: pytest.MonkeyPatch, no_rules: None) -> None:
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
        flat, offsets, lengths = answer
        assert [row.tolist() for row in np.split(flat, offsets[1:-1])] == expected
        assert lengths.tolist() == [*map(len, expected), 0]
    assert expected == ids(found, texts)


def test_the_unknown_token_as_such_and_as_what_is_unknown(monkeypatch: pytest.MonkeyPatch, no_rules: None) -> None:
    """Text with characters that the vocabulary has not is put together too; only "<unk>" itself is left."""
    found = trained.library("xlm-roberta")
    fast = made(found)
    texts = ["\u5b57 the wing", "the \u5b57\u5b57wing", "the <unk> wing", "the <unk>wing", "\uff1cunk\uff1e the"]
    assert ids(fast, texts) == ids(found, texts)
    asked: list[str] = []
    monkeypatch.setattr(fast, "_library", Asked(found, asked))
    fast(texts)
    assert asked == texts[2:]


def folded_token(found: Any) -> None:
    """A token that has a space only as the normalizer leaves it."""
    found.normalizer = normalizers.NFKC()
    found.add_tokens([AddedToken("the\xa8", normalized=True)])


def prefixed(found: Any) -> None:
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def replaced(found: Any) -> None:
    found.normalizer = normalizers.Replace("e", "!")


def runs_of_spaces(found: Any) -> None:
    """ModernBERT's own tokenizer has them."""
    found.add_tokens([AddedToken(" " * count, normalized=True) for count in range(2, 25)])
    found.add_tokens(["\n\n", "\t "])


@pytest.mark.parametrize(
    ("name", "change"), [("roberta", prefixed), ("qwen", replaced), ("modernbert", runs_of_spaces)]
)
def test_spaces_and_lines_where_a_cut_may_change_them(name: str, change: Any) -> None:
    found = trained.library(name)
    change(found)
    assert known(found)
    texts = ["Q\n", "the\nwing", "the\n\nwing", "e\n e\n\n", "the  wing   stalls\t  e", "  the\t wing ", "\n", "  "]
    texts += some_strings(found, 5, 400)
    assert ids(made(found), texts) == ids(found, texts)


@cache
def nmt_nfkc() -> Any:
    """The table of SentencePiece's usual normalizer, which makes a space of some characters and drops others."""
    trained_model = io.BytesIO()
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the wing stalls"] * 9),
        model_writer=trained_model,
        vocab_size=50,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = pytest.importorskip("sentencepiece.sentencepiece_model_pb2").ModelProto()
    model.ParseFromString(trained_model.getvalue())
    return normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)


@pytest.mark.parametrize("name", ["roberta", "qwen", "xlm-roberta"])
def test_what_a_normalizer_makes_a_space_of(name: str) -> None:
    """Behind a space of any origin a word is cut nowhere; a mark that stands on one is gone with it."""
    found: Any = trained.library(name)
    found.normalizer = normalizers.Sequence([nmt_nfkc(), normalizers.Replace(Regex(" {2,}"), " ")])
    if name == "xlm-roberta":
        found.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        found.normalizer = nmt_nfkc()
    assert known(found)
    characters = map(
        chr, [*range(1, 0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0x11000), *range(0xE0000, 0xE0200)]
    )
    texts = [f"a{character} b{character}\n" for character in characters]
    blanks = "\t\x7f\x85\xa0\u061c\u1680\u200b\u2028\u205f\u2581\u3000\ufeff\ufffdaé字ก"
    marks = ["\u0301", "\u0345", "\u20e3", "\u0301\u0e33\u0345", "\U0001d167"]
    texts += [f"the{blank}{mark} wing {blank}{mark}  \n" for blank in blanks for mark in marks]
    assert ids(made(found), texts) == ids(found, texts)


# It looks where in the text a word stands.
FIRST = pre_tokenizers.Metaspace(prepend_scheme="first")


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
        change("normalizer", normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
        change("normalizer", normalizers.BertNormalizer()),
        change("model", models.BPE(dropout=0.1)),
        change("model", models.Unigram([("the", 0.0)], 0, False, 0.1, None)),
        change("model", models.Unigram([("the", 0.0)], 0, False, None, 2)),
        change("normalizer", normalizers.Replace(Regex(" {2,}"), "▁")),
        change("normalizer", normalizers.Sequence([normalizers.StripAccents(), normalizers.Strip(left=False)])),
        change("pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), FIRST])),
        lambda found: found.add_tokens([AddedToken("the wing")]),
        lambda found: found.add_tokens([AddedToken("the\nwing")]),
        folded_token,
    ]


@pytest.mark.parametrize("change", unlike())
def test_what_may_look_further_is_not_known(change: Any) -> None:
    found = trained.library("roberta")
    assert known(found)
    change(found)
    assert not known(found)


def test_an_added_token_of_spaces_that_the_normalizer_may_put_there() -> None:
    """BERT's puts spaces around ideographs: one behind a word, and one that the text has, are two."""
    found = trained.library("roberta")
    found.normalizer, found.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.WhitespaceSplit()
    assert known(found)
    found.add_tokens([AddedToken("  ", normalized=False)])
    assert known(found)
    assert ids(made(found), ["the 鷒 wing"]) == ids(found, ["the 鷒 wing"])
    found.add_tokens([AddedToken("   ", normalized=True)])
    assert not known(found)


@pytest.mark.parametrize(
    "side", [{"rstrip": True}, {"lstrip": True}, {"single_word": True}, {"normalized": True}], ids=str
)
def test_added_tokens(side: Any) -> None:
    found = trained.library("albert")
    found.add_tokens([AddedToken("stall", **side)])
    texts = ["the stall  wing", "stall", "a STALL b", "stalls stall", "xstall the", "the wing"]
    assert ids(made(found), texts) == ids(found, texts)
