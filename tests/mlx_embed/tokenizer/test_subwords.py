"""A tokenizer's own rules in native code: the library's ids, and whatever is simple without asking it."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

from custom_kernels import cpu
from mlx_embed.tokenizer import framed, pieces, subwords
from mlx_embed.tokenizer.classes import state
from mlx_embed.tokenizer.pieces import PieceTokenizer
from tests.mlx_embed.tokenizer import trained
from tests.mlx_embed.tokenizer.checkpoints import library

pytestmark = pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")

LLAMA = trained.QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def llama() -> Any:
    found: Any = trained.library("qwen")
    split = pre_tokenizers.Split(Regex(LLAMA), "isolated")
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return found


def prefixed() -> Any:
    found: Any = trained.library("roberta")
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return found


KINDS: dict[str, Callable[[], Any]] = {
    "bert": lambda: library("tiny-bert"),
    "llama": llama,
    "prefixed": prefixed,
    **{kind: lambda kind=kind: trained.library(kind) for kind in trained.KINDS},
}


class Silent:
    """A library that is not to be asked."""

    def __init__(self, found: tokenizers.Tokenizer) -> None:
        self.normalizer = found.normalizer

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> Any:
        raise AssertionError(f"asked for {texts}")


def rules_of(found: Any) -> Any:
    return subwords.rules(found, state(found.model))


def compare(found: Any, texts: list[str]) -> None:
    """The library's ids, without asking it."""
    assert pieces.known(found)
    assert rules_of(found) is not None
    fast = PieceTokenizer(found, framed(found))
    fast._library = Silent(found)  # type: ignore[assignment]
    made = fast(texts, whole=True)
    assert made is not None
    expected = [x.ids for x in found.encode_batch_fast(texts)]
    wrong = [text for text, a, b in zip(texts, made.tolist(), expected, strict=True) if a != b]
    assert not wrong, wrong[:5]


def texts_of(alphabet: list[str], count: int, most: int, seed: int = 5) -> list[str]:
    rng = random.Random(seed)
    return ["x" + "".join(rng.choices(alphabet, k=rng.randrange(most))) + "y" for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_where_words_end(kind: str) -> None:
    spaces = [" "] if kind in ("t5", "albert") else [" ", " ", "  ", "\n", "\t", "\r\n", " \n "]
    alphabet = [*spaces, *"abéÉ字の한1.(_—Ж，'", "23", "'s", "'LL", "'re"]
    texts = texts_of(alphabet, 1500, 14)
    if kind in ("t5", "albert"):
        texts = [" ".join(text.split()) for text in texts]
    if kind == "albert":
        texts = [text.replace("`", "") for text in texts]
    compare(KINDS[kind](), texts)


@pytest.mark.parametrize("seed", range(6))
def test_unigram(seed: int) -> None:
    """Ties, what is unknown, and scores that make tokens worse than none."""
    rng = random.Random(seed)
    tokens = {"".join(rng.choices("ab中é▁", k=rng.randrange(1, 5))) for _ in range(rng.choice((5, 40, 150)))}
    scores = rng.choice(((0.0,), (-1.0, -2.0, -3.0), (-1.5, 0.0, 30.0, 60.0)))
    vocabulary = [("<unk>", 0.0), *((token, rng.choice(scores)) for token in sorted(tokens))]
    made: Any = tokenizers.Tokenizer(models.Unigram(vocabulary, 0))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    compare(made, texts_of([*"ab中éc字", " "], 400, 30))


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_bpe(seed: int, whole_words: bool) -> None:
    """Merges in any order, several of them to one token."""
    rng = random.Random(seed)
    vocabulary = {character: place for place, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for _ in range(80):
        left, right = (rng.choice([*"abc", *(x for x in vocabulary if set(x) <= {*"abc"})]) for _ in range(2))
        if (left, right) not in merges and len(left + right) < 9:
            merges.append((left, right))
            vocabulary.setdefault(left + right, len(vocabulary))
    made: Any = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=whole_words))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    compare(made, texts_of([*"abc", "字"], 400, 40))


@pytest.mark.parametrize("inner", ["##", "", "@"])
def test_wordpiece(inner: str) -> None:
    rng = random.Random(3)
    parts = ["".join(rng.choices("abé字", k=rng.randrange(1, 4))) for _ in range(40)]
    parts = ["[UNK]", *dict.fromkeys([*parts, *(inner + part for part in parts)])]
    tokens = {part: place for place, part in enumerate(parts)}
    made: Any = tokenizers.Tokenizer(
        models.WordPiece(tokens, unk_token="[UNK]", max_input_chars_per_word=9, continuing_subword_prefix=inner)
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    compare(made, texts_of([*"abé字", " ", "-"], 600, 14))


def test_a_text_without_spaces_that_is_longer_than_what_is_remembered() -> None:
    compare(trained.library("xlm-roberta"), ["字" * 3000, "the" * 1000, "한글" * 700 + " the"])


def test_added_tokens_are_left_to_the_library() -> None:
    found: Any = trained.library("albert")
    found.add_tokens([AddedToken("Stall", normalized=True), AddedToken("字", normalized=False)])
    texts = ["the stall", "xSTALLx", "x字y 字", "<mask>x", "x<mask>", "xx", "stal l"]
    fast = PieceTokenizer(found, framed(found))
    made = fast(texts, whole=True)
    assert made is not None
    assert made.tolist() == [x.ids for x in found.encode_batch_fast(texts)]


def test_a_text_with_a_zero_is_the_librarys() -> None:
    found = trained.library("roberta")
    fast = PieceTokenizer(found, framed(found))
    made = fast(["a\0b", "the"], whole=True)
    assert made is not None
    assert made.tolist() == [x.ids for x in found.encode_batch_fast(["a\0b", "the"])]


def of_other_kinds() -> list[Any]:
    def change(kind: str, name: str, value: Any) -> Any:
        def make() -> Any:
            found = KINDS[kind]()
            setattr(found, name, value)
            return found

        return make

    def edited(kind: str, **options: Any) -> Any:
        def make() -> Any:
            found: Any = KINDS[kind]()
            for name, value in options.items():
                setattr(found.model, name, value)
            return found

        return make

    def token(kind: str, content: str) -> Any:
        def make() -> Any:
            found: Any = KINDS[kind]()
            found.add_tokens([AddedToken(content, normalized=True)])
            return found

        return make

    scored = [("<unk>", 0.0), ("a", -1.0)]
    return [
        edited("roberta", continuing_subword_prefix="##"),
        edited("roberta", end_of_word_suffix="</w>"),
        change("roberta", "model", models.BPE({"a": 0}, [])),
        change("roberta", "normalizer", normalizers.Strip(left=False)),
        change("roberta", "normalizer", normalizers.Replace(Regex(" {2,}"), " ")),
        change("roberta", "normalizer", normalizers.Replace("|", "a")),
        change("roberta", "pre_tokenizer", pre_tokenizers.Whitespace()),
        change("xlm-roberta", "model", models.Unigram(scored, None)),
        change("xlm-roberta", "model", models.Unigram(scored, 0, True)),
        change("xlm-roberta", "model", models.Unigram([*scored, ("a", -2.0)], 0)),
        change("xlm-roberta", "pre_tokenizer", pre_tokenizers.ByteLevel()),
        change("bert", "model", models.WordPiece({"a": 0}, unk_token="[UNK]")),
        token("xlm-roberta", " the"),
        token("albert", "\u0301"),
    ]


@pytest.mark.parametrize("make", of_other_kinds())
def test_what_is_not_of_a_kind_that_is_written_here(make: Any) -> None:
    assert rules_of(make()) is None


def test_characters_that_are_looked_for_are_not_simple() -> None:
    found: Any = trained.library("xlm-roberta")
    found.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("..", "!")])
    kinds = rules_of(found).kinds
    assert [bool(kinds[ord(character)]) for character in ".…!a▁"] == [False, False, True, True, False]


@pytest.mark.parametrize("scheme", ["never", "first", "always"])
@pytest.mark.parametrize("before", [[], [pre_tokenizers.WhitespaceSplit()]])
def test_what_stands_for_a_space_cuts_words_of_texts_too(before: list[Any], scheme: str) -> None:
    found: Any = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("a_b", -1.0), ("_", -2.0), ("a", -5.0)], 0))
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [*before, pre_tokenizers.Metaspace(replacement="_", prepend_scheme=scheme)]
    )
    if not pieces.known(found):
        assert before
        assert scheme == "first"
        return
    texts = ["a_b", "x a_b a", "_a_b_", "a _b"]
    made = PieceTokenizer(found, framed(found))(texts, whole=True)
    assert made is not None
    assert made.tolist() == [x.ids for x in found.encode_batch_fast(texts)]
