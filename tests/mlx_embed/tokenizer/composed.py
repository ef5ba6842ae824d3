"""Tokenizers put together at random: any normalizers, pre-tokenizers, models, post-processors and added tokens."""

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, processors, trainers

from tests.conftest import ROOT
from tests.mlx_embed.tokenizer import trained

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
PATTERNS = ("a", "e", "``", "the", " ", "  ", "\n", "é", "th", "\u3002", "'")
CONTENTS = ("", "", "b", " ", "\u2581", '"', "ing", "the wing", "\u0301")
REGEXES = (
    " {2,}",
    r"\s+",
    r"\d",
    r"\s+$",
    r"^\s",
    r"[^\w\s]",
    r"\w+ \w+",
    trained.QWEN,
    trained.QWEN.replace("N}", "N}{1,3}"),
)
BEHAVIORS = ("isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous")
TOKENS = (
    "<x>",
    "the",
    "wing",
    "ing",
    "a",
    "é",
    "É",
    "the wing",
    " the",
    "the ",
    "\n\n",
    "  ",
    "\u0301",
    "##",
    "[MASK]",
    "Ａ",
)


@cache
def _model(kind: str) -> str:
    """A small model of a kind that is trained on the documentation, in a tokenizer of its own."""
    made: Any = tokenizers.Tokenizer(
        {"bytes": models.BPE, "bpe": models.BPE, "unigram": models.Unigram, "wordpiece": models.WordPiece}[kind]()
    )
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    options: Any = {"vocab_size": 600, "special_tokens": list(SPECIAL), "show_progress": False}
    trainer: Any = trainers.BpeTrainer(**options)
    if kind == "bytes":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
    elif kind == "unigram":
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **options)
    elif kind == "wordpiece":
        trainer = trainers.WordPieceTrainer(**options)
    made.train_from_iterator([path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))], trainer)
    return str(made.to_str())


def composed(rng: random.Random) -> tokenizers.Tokenizer:
    """A tokenizer; each has some tokens in common with the documentation."""
    kind = rng.choice(("bytes", "bytes", "bpe", "unigram", "unigram", "wordpiece"))
    made: Any = tokenizers.Tokenizer.from_str(_model(kind))
    _options(rng, made.model, kind)
    steps = [_normalizer(rng) for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))]
    made.normalizer = normalizers.Sequence(steps) if len(steps) != 1 else steps[0]
    if not steps and rng.random() < 0.5:
        made.normalizer = None
    cuts = [_pre_tokenizer(rng, kind) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
    made.pre_tokenizer = (
        pre_tokenizers.Sequence(cuts) if len(cuts) > 1 else rng.choice((cuts[0], cuts[0], cuts[0], None))
    )
    made.post_processor = _post_processor(rng)
    for _ in range(rng.choice((0, 0, 1, 2))):
        flags = {name: rng.random() < 0.3 for name in ("lstrip", "rstrip", "single_word", "normalized", "special")}
        made.add_tokens([AddedToken(rng.choice(TOKENS), **flags)])
    made.encode_special_tokens = rng.random() < 0.05
    return made


def _options(rng: random.Random, model: Any, kind: str) -> None:
    if kind in ("bytes", "bpe"):
        model.unk_token = rng.choice((None, "<unk>", "<unk>"))
        model.fuse_unk, model.ignore_merges = rng.random() < 0.3, rng.random() < 0.3
        model.byte_fallback = rng.random() < 0.1
        model.continuing_subword_prefix = rng.choice((None, None, None, "##", ""))
        model.end_of_word_suffix = rng.choice((None, None, None, "</w>", ""))
    elif kind == "wordpiece":
        model.unk_token = "<unk>"
        model.max_input_chars_per_word = rng.choice((100, 100, 5, 300))
        model.continuing_subword_prefix = rng.choice(("##", "##", "", "@"))


def _normalizer(rng: random.Random) -> Any:
    def coin() -> bool:
        return rng.random() < 0.5

    makers: tuple[Callable[[], Any], ...] = (
        *(normalizers.NFC, normalizers.NFD, normalizers.NFKC, normalizers.NFKD, normalizers.Nmt),
        *(normalizers.Lowercase, normalizers.StripAccents, normalizers.ByteLevel),
        lambda: normalizers.BertNormalizer(coin(), coin(), rng.choice((None, True, False)), coin()),
        lambda: normalizers.Strip(rng.random() < 0.3, coin()),
        lambda: normalizers.Replace(rng.choice(PATTERNS), rng.choice(CONTENTS)),
        lambda: normalizers.Replace(rng.choice(PATTERNS), rng.choice(CONTENTS)),
        lambda: normalizers.Replace(Regex(rng.choice((" {2,}", *REGEXES))), rng.choice(CONTENTS)),
        lambda: normalizers.Prepend("\u2581"),
    )
    return rng.choice(makers)()


def _pre_tokenizer(rng: random.Random, kind: str) -> Any:
    def coin() -> bool:
        return rng.random() < 0.5

    usual: dict[str, tuple[Callable[[], Any], ...]] = {
        "bytes": (
            lambda: pre_tokenizers.ByteLevel(add_prefix_space=coin(), use_regex=rng.random() < 0.7),
            lambda: pre_tokenizers.Split(Regex(rng.choice(REGEXES[-2:])), "isolated"),
        ),
        "unigram": (
            lambda: pre_tokenizers.Metaspace(
                rng.choice("\u2581\u2581_"), rng.choice(("always", "first", "never")), rng.random() < 0.8
            ),
            pre_tokenizers.WhitespaceSplit,
        ),
        "wordpiece": (pre_tokenizers.BertPreTokenizer, pre_tokenizers.Whitespace),
        "bpe": (pre_tokenizers.Whitespace, pre_tokenizers.WhitespaceSplit),
    }
    others: tuple[Callable[[], Any], ...] = (
        lambda: pre_tokenizers.Split(Regex(rng.choice(REGEXES)), rng.choice(BEHAVIORS), coin()),
        lambda: pre_tokenizers.Split(rng.choice(PATTERNS), rng.choice(BEHAVIORS), coin()),
        lambda: pre_tokenizers.Punctuation(rng.choice(BEHAVIORS)),
        lambda: pre_tokenizers.Digits(coin()),
        lambda: pre_tokenizers.CharDelimiterSplit(rng.choice(("e", " ", "-"))),
        pre_tokenizers.UnicodeScripts,
        lambda: pre_tokenizers.FixedLength(rng.choice((3, 5))),
    )
    every = tuple(maker for makers in usual.values() for maker in makers) + others
    return rng.choice(usual[kind] if rng.random() < 0.7 else every)()


def _post_processor(rng: random.Random) -> Any:
    first, last = ("<s>", 0), ("</s>", 2)
    templates = ("<s> $A </s>", "$A", "<s> $A", "$A </s> </s>", "<s> <s> $A </s>")
    return rng.choice(
        (
            None,
            processors.BertProcessing(last, first),
            processors.RobertaProcessing(last, first),
            processors.ByteLevel(),
            processors.TemplateProcessing(rng.choice(templates), special_tokens=[first, last]),
            processors.Sequence(
                [
                    processors.ByteLevel(),
                    processors.TemplateProcessing(rng.choice(templates), special_tokens=[first, last]),
                ]
            ),
        )
    )
