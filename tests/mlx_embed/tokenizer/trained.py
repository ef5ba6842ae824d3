"""Tokenizers of the kinds that have no checkpoint here, trained on the documentation."""

from functools import cache
from typing import Any

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors, trainers

from tests.conftest import ROOT

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
KINDS = ("roberta", "modernbert", "qwen", "xlm-roberta", "t5", "albert")


def _words() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])


@cache
def _trained(unigram: bool, vocabulary: int) -> str:
    made: Any = tokenizers.Tokenizer(models.Unigram() if unigram else models.BPE())
    options: Any = {
        "vocab_size": vocabulary,
        "special_tokens": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "show_progress": False,
    }
    trainer: Any
    if unigram:
        made.pre_tokenizer = _words()
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **options)
    else:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
    made.train_from_iterator([path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))], trainer)
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return str(made.to_str())


def library(kind: str, vocabulary: int = 800) -> tokenizers.Tokenizer:
    """A tokenizer of one of KINDS, with the steps that this kind has, and about so many tokens."""
    unigram = kind in ("xlm-roberta", "t5", "albert")
    made: Any = tokenizers.Tokenizer.from_str(_trained(unigram, vocabulary))
    if kind == "modernbert":
        made.normalizer = normalizers.NFC()
    elif kind == "qwen":
        made.normalizer = normalizers.NFC()
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"), byte_level])
    elif kind == "xlm-roberta":
        made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    elif kind == "t5":
        made.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")]
        )
        made.pre_tokenizer = pre_tokenizers.Metaspace()
    elif kind == "albert":
        made.normalizer = normalizers.Sequence(
            [normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
        )
        made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made
