"""What is fast in the place of tokenizers: the same ids, or none of its own."""

import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from custom_kernels import cpu
from mlx_embed import EmbeddingModel
from mlx_embed.ids import Ids
from mlx_embed.tokenizer import Tokenizer, fast, framed, pieces
from mlx_embed.tokenizer.fast import FastTokenizer
from mlx_embed.tokenizer.nano import known
from mlx_embed.tokenizer.tokens import Frame
from tests.conftest import DATA, TINY
from tests.mlx_embed.tokenizer.checkpoints import library, read
from tests.mlx_embed.tokenizer.strings import some_strings

TEXTS = ["the wing", "", "flow heat " * 9, "Naïve CAFÉ 日本", "[SEP] a"]
FLAGS = [(True, True, None, True), (True, True, False, False), (False, False, True, True), (True, False, False, True)]
Wrong = Callable[[str], bool]


def play(patch: pytest.MonkeyPatch, wrong: Wrong = lambda text: False) -> None:
    """Put in nanotoken's place what asks tokenizers, and adds a token to texts that are to be wrong."""

    class Played:
        def __init__(self, library: tokenizers.Tokenizer) -> None:
            self.library = library

        @classmethod
        def from_json(cls, data: str) -> "Played":
            return cls(tokenizers.Tokenizer.from_str(data))

        def encode_batch(self, texts: list[str], add_special_tokens: bool) -> Any:
            made = self.library.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
            ids = Ids.of([[*x.ids, 1] if wrong(text) else x.ids for x, text in zip(made, texts, strict=True)])
            return SimpleNamespace(ids=ids.flat.view(np.uint32), offsets=ids.offsets)

    patch.setitem(sys.modules, "nanotoken", SimpleNamespace(Tokenizer=Played, set_cache_entries=lambda count: None))


def ready(found: tokenizers.Tokenizer, special: bool = True) -> FastTokenizer:
    made = FastTokenizer(found, framed(found) if special else Frame(), Path("checkpoint"))
    made.prepare()
    return made


def ids(found: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in found.encode_batch(texts)]


@pytest.fixture
def nanotoken() -> Any:
    return pytest.importorskip("nanotoken", reason='nanotoken is not installed: pip install ".[fast]"')


def same_on(found: tokenizers.Tokenizer, count: int) -> None:
    made = ready(found)
    assert made.active
    assert made.name == "nano"
    texts = some_strings(found, 17, count)
    assert made.ids(texts).tolist() == ids(found, texts)


@pytest.mark.parametrize("flags", FLAGS, ids=str)
@pytest.mark.parametrize("name", TINY)
def test_random_strings(name: str, flags: tuple[bool | None, ...], nanotoken: Any) -> None:
    found = library(name)
    found.normalizer = normalizers.BertNormalizer(*flags)
    same_on(found, 1500)


def test_random_strings_of_minilm(minilm_path: Path, nanotoken: Any) -> None:
    found = tokenizers.Tokenizer.from_file(str(minilm_path / "tokenizer.json"))
    found.no_padding()
    found.no_truncation()
    same_on(found, 8000)


@pytest.mark.parametrize("name", TINY)
def test_ids_before_and_after(name: str, nanotoken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "WORTH_LOADING", 2 * len(TEXTS))
    found = Tokenizer(read(name), 7)
    expected = found(TEXTS, "the ")
    assert found.fast is not None
    assert not found.fast.active
    found(TEXTS)
    assert found.fast._thread is not None
    found.fast._thread.join()
    assert found.fast.active
    texts = [*TEXTS, "x\ud800"]
    made = found(texts, "the ")
    assert made.ids.tolist()[:-1] == expected.ids.tolist()
    assert made.ids.tolist()[-1] == found(["x\ufffd"], "the ").ids.tolist()[0]
    assert made.counts[:-1].tolist() == expected.counts.tolist()
    assert found([]).ids.tolist() == []
    assert found.fast.active, "neither a lone surrogate nor no texts turn it off"


@pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")
def test_vectors_are_the_same(nanotoken: Any) -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")
    texts = [text.replace("\ud800", "") for text in some_strings(model.tokenizer.library, 3, 300)]
    expected, counts = model.encode(texts), model.token_counts(texts)
    assert model.tokenizer.fast is not None
    model.tokenizer.fast.prepare()
    assert model.tokenizer.fast.active
    assert np.array_equal(model.encode(texts), expected)
    assert np.array_equal(model.token_counts(texts), counts)


def test_without_special_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)
    made = ready(library("tiny-bert"), special=False)
    plain = [x.ids for x in library("tiny-bert").encode_batch(TEXTS[:1], add_special_tokens=False)]
    found = made(TEXTS[:1])
    assert found is not None
    assert found.tolist() == plain


@pytest.mark.parametrize(
    "part",
    [
        "[MASK][MASK]a",
        "ᚠ",
        "\U00010330",
        "\U000e0040",
        "\x1c",
        "\ufffd",
        "a" * 100,
        "a" * 101,
        "Ä" * 99,
        "wing",
        "7919",
        "\ud550",
    ],
    ids=ascii,
)
def test_the_probe_finds_a_difference(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, lambda text: part in text)
    made = ready(library("tiny-bert"))
    assert not made.active
    with pytest.warns(
        UserWarning, match=r"\(nano\) makes other token ids than tokenizers with the checkpoint in check"
    ):
        assert made(TEXTS) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(TEXTS) is None, "once"


def test_a_difference_while_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window in which it is found is made by tokenizers, and all that follow."""
    play(monkeypatch, lambda text: text == "wrong")
    monkeypatch.setattr(fast, "CHECK_EVERY", 10)
    found = Tokenizer(read(), 64)
    assert found.fast is not None
    found.fast.prepare()
    expected = ids(library("tiny-bert"), ["wrong"])
    window = [*["a"] * 4, "wrong", "a"]
    assert found(window[:2]).ids.tolist() == ids(library("tiny-bert"), window[:2])
    assert found(window).ids[4].tolist() != expected[0], "not one of those that are compared"
    found(["a"])
    with pytest.warns(UserWarning, match="Please report it"):
        made = found(["a", "wrong", "the wing"])
    assert made.ids.tolist() == ids(library("tiny-bert"), ["a", "wrong", "the wing"])
    assert not found.fast.active


def test_one_text_in_so_many_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)
    monkeypatch.setattr(fast, "CHECK_EVERY", 10)
    made = ready(library("tiny-bert"))
    compared: list[str] = []
    monkeypatch.setattr(made, "_same", lambda texts, found: compared.extend(texts) or True)
    given = iter(range(100))
    for size in (1, 2, 30, 0, 7, 1, 5, 54):
        made([str(number) for number in islice(given, size)])
    assert compared == [str(number) for number in range(0, 100, 10)]


class PanicException(BaseException):
    pass


@pytest.mark.parametrize("error", [PanicException("index"), ValueError("odd"), MemoryError()], ids=repr)
def test_a_failure_while_running(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(text: str) -> bool:
        if text == "fails":
            raise error
        return False

    play(monkeypatch, wrong)
    found = Tokenizer(read(), 64)
    assert found.fast is not None
    found.fast.prepare()
    with pytest.warns(UserWarning, match="Please report it"):
        made = found(["a", "fails"])
    assert made.ids.tolist() == ids(library("tiny-bert"), ["a", "fails"])


def test_an_interrupt_is_none_of_its_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(text: str) -> bool:
        if text == "now":
            raise KeyboardInterrupt
        return False

    play(monkeypatch, wrong)
    made = ready(library("tiny-bert"))
    with pytest.raises(KeyboardInterrupt):
        made(["now"])
    assert made.active


def test_what_gives_nothing_to_compare_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanotoken", None)
    monkeypatch.setattr(pieces, "maker", lambda library, frame: lambda texts, whole: None)
    assert not ready(library("tiny-bert")).active


def test_without_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanotoken", None)
    monkeypatch.setattr(pieces, "maker", lambda library, frame: None)
    made = ready(library("tiny-bert"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(TEXTS) is None
    assert not made.active


def test_where_nanotoken_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanotoken", None)
    made = ready(library("tiny-bert"))
    assert made.active == cpu.available()
    assert made.name == ("pieces" if made.active else "")


def test_what_nanotoken_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_json(data: str) -> Any:
        raise ValueError("unsupported")

    monkeypatch.setitem(
        sys.modules,
        "nanotoken",
        SimpleNamespace(Tokenizer=SimpleNamespace(from_json=from_json), set_cache_entries=lambda count: None),
    )
    assert ready(library("tiny-bert")).name != "nano"


def unlike() -> Iterator[Any]:
    """Changes after which a tokenizer is not quite BERT's."""

    def change(name: str, value: Any) -> Callable[[tokenizers.Tokenizer], None]:
        return lambda found: setattr(found, name, value)

    yield change("normalizer", normalizers.NFC())
    yield change("normalizer", normalizers.Sequence([normalizers.BertNormalizer(), normalizers.Replace("a", "b")]))
    yield change("normalizer", None)
    yield change("pre_tokenizer", pre_tokenizers.Whitespace())
    yield change("pre_tokenizer", None)
    yield change("encode_special_tokens", True)
    yield change("model", models.BPE(unk_token="[UNK]"))


@pytest.mark.parametrize("change", list(unlike()))
def test_what_is_not_known_is_not_tried(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)
    monkeypatch.setattr(fast, "WORTH_LOADING", 1)
    found = library("tiny-bert")
    assert known(found)
    around = framed(found)
    change(found)
    made = FastTokenizer(found, around, Path("checkpoint"))
    made.prepare()
    assert made.name != "nano"
