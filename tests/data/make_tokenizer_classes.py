"""Make tokenizer_classes.json: what transformers' AutoTokenizer makes of a folder whose two tokenizer files disagree.

    python tests/data/make_tokenizer_classes.py          # with transformers 5: makes the table
    python tests/data/make_tokenizer_classes.py --add    # with another version: adds what that one does differently

The table holds small tokenizer.json files, folders made of them (a change of the file, a tokenizer_config.json, other
files, a model_type), and for each folder the class that transformers takes, what the class keeps of tokenizer.json, and
the ids of some texts. Of a row, "expect" and the parts of "change" are places in "values", and so are an outcome's own
parts; "other" is the outcome of another version where its ids differ.
"""

import argparse
import base64
import contextlib
import io
import json
import logging
import os
import struct
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "critical"

PATH = Path(__file__).with_name("tokenizer_classes.json")
TEXTS = ["the Wing", " heat  of", "café", "中国 wing", "it's <mask>[MASK]", "x[SEP]</s>", ""]
PAIRS = [["the Wing", "heat of"], ["", "wing"]]
LONG = "the wing of heat it the wing of heat"
CUT = 6

# What stands in the table once, in "values", and in the rows by its place there.
NUMBERED = {
    *("names", "normalizer", "pre_tokenizer", "post_processor", "model", "added"),
    *("ids", "pairs", "cut", "cut_pair", "default_cut"),
}
_BRACKETS = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_ANGLES = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>", "mask": "<mask>"}


def tokens(spelling: dict[str, str], *roles: str) -> dict[str, str]:
    return {f"{role}_token": spelling[role] for role in roles or spelling}


def added(contents: list[str], vocabulary: dict[str, int]) -> list[dict[str, Any]]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [{"id": vocabulary[content], "content": content, **flags, "special": True} for content in contents]


def template(before: str, after: str, pair: list[tuple[str, int]], ids: dict[str, int]) -> dict[str, Any]:
    """A TemplateProcessing: `pair` lists "$A", "$B" and tokens, each with its type."""

    def piece(name: str, kind: int) -> dict[str, Any]:
        if name.startswith("$"):
            return {"Sequence": {"id": name[1:], "type_id": kind}}
        return {"SpecialToken": {"id": name, "type_id": kind}}

    single = [piece(name, 0) for name in (before, "$A", after) if name]
    both = [piece(name, kind) for name, kind in pair]
    used = sorted({name for name in (before, after, *(n for n, _ in pair)) if name and not name.startswith("$")})
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": both,
        "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in used},
    }


def whole(**parts: Any) -> dict[str, Any]:
    absent = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    return {"version": "1.0", **absent, "added_tokens": [], **parts}


def bert_normalizer(**changes: Any) -> dict[str, Any]:
    usual = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    return {"type": "BertNormalizer", **usual, **changes}


def wordpiece(special: list[str], before: str, after: str, pair: list[tuple[str, int]], unknown: str) -> dict[str, Any]:
    words = (
        "the The wing Wing heat of it ' s x caf ca café cafe 中国 中 国 < > [ ] / mask MASK SEP ##e ##é ##f ##s ##国"
    )
    ids = {word: i for i, word in enumerate([*special, *words.split()])}
    model = {"unk_token": unknown, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": ids}
    return whole(
        added_tokens=added(special, ids),
        normalizer=bert_normalizer(),
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=template(before, after, pair, ids),
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
        model={"type": "WordPiece", **model},
    )


def byte_alphabet() -> list[str]:
    """The characters that stand for the 256 bytes in GPT-2's vocabulary, by byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(byte if byte in kept else next(moved)) for byte in range(256)]


def byte_level(special: list[str], post_processor: Any = None) -> dict[str, Any]:
    merges = ["t h", "th e", "Ġ the", "W i", "n g", "Wi ng", "Ġ Wing", "w i", "wi ng", "Ġ wing", "h e", "Ġ he", "Ġ o"]
    pieces = [*byte_alphabet(), *(merge.replace(" ", "") for merge in merges)]
    ids = {piece: i for i, piece in enumerate([*special, *pieces])}
    model = {"dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": ""}
    return whole(
        added_tokens=added(special, ids),
        pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        post_processor=post_processor(ids) if callable(post_processor) else post_processor,
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        model={"type": "BPE", **model, "fuse_unk": False, "byte_fallback": False, "vocab": ids, "merges": merges},
    )


def roberta(ids: dict[str, int]) -> dict[str, Any]:
    ends = {"sep": ["</s>", ids["</s>"]], "cls": ["<s>", ids["<s>"]]}
    return {"type": "RobertaProcessing", **ends, "trim_offsets": True, "add_prefix_space": False}


def metaspace(scheme: str = "always") -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}


def charsmap(old: str, new: str) -> dict[str, Any]:
    """SentencePiece's table of replaced characters, with one of ASCII: a trie in which it leads to the other."""
    trie = [0] * 256
    trie[ord(old)] = ord(old) | 1 << 8 | 1 << 10  # its label, that a value follows, and that it is one place off
    trie[ord(old) ^ 1] = 0  # where in the text below the replacement begins
    table = struct.pack("<I256I", 4 * len(trie), *trie) + new.encode() + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


def several(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(steps)}}


def replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def unigram(special: list[str], unknown: str = "<unk>", ends: Any = None) -> dict[str, Any]:
    words = [
        "▁the",
        "the",
        "▁wing",
        "▁Wing",
        "Wing",
        "▁heat",
        "heat",
        "▁of",
        "▁it",
        "▁",
        "'",
        "s",
        "caf",
        "e",
        "é",
        "x",
    ]
    scores = dict.fromkeys(special, 0.0) | {word: -2.0 - i / 8 for i, word in enumerate(words)}
    ids = {word: i for i, word in enumerate(scores)}
    pair = [("<s>", 0), ("$A", 0), ("</s>", 0), ("</s>", 0), ("$B", 0), ("</s>", 0)]
    return whole(
        added_tokens=added([token for token in special if "NOTUSED" not in token], ids),
        pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace()]},
        post_processor=template(*(ends or ("<s>", "</s>", pair)), ids),
        decoder=metaspace(),
        model={
            "type": "Unigram",
            "unk_id": ids[unknown],
            "vocab": [list(item) for item in scores.items()],
            "byte_fallback": False,
        },
    )


def sentencepiece_bpe(special: list[str], bos: str, normalizer: Any, pre_tokenizer: Any) -> dict[str, Any]:
    letters = ["▁", "t", "h", "e", "W", "w", "i", "n", "g", "a", "o", "f", "s", "x", "c", "'", "é"]
    merges = ["t h", "th e", "▁ the", "w i", "n g", "wi ng", "▁ wing", "W i", "Wi ng", "▁ Wing", "h e", "a t", "o f"]
    fallback = [f"<0x{byte:02X}>" for byte in "中国".encode()]
    pieces = dict.fromkeys([*special, *fallback, *letters, *(merge.replace(" ", "") for merge in merges)])
    ids = {piece: i for i, piece in enumerate(pieces)}
    pair = [(bos, 0), ("$A", 0), (bos, 1), ("$B", 1)]
    replaced = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    model = {"dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None}
    return whole(
        added_tokens=added(special, ids),
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        post_processor=template(bos, "", pair, ids),
        decoder={"type": "Sequence", "decoders": [replaced, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        model={"type": "BPE", **model, "fuse_unk": True, "byte_fallback": True, "vocab": ids, "merges": merges},
    )


def qwen_end(ids: dict[str, int]) -> dict[str, Any]:
    end = "<|endoftext|>"
    return template("", end, [("$A", 0), (end, 0), ("$B", 1), (end, 1)], ids)


TYPED = [("[CLS]", 0), ("$A", 0), ("[SEP]", 0), ("$B", 1), ("[SEP]", 1)]
UNTYPED = [("<s>", 0), ("$A", 0), ("</s>", 0), ("</s>", 0), ("$B", 0), ("</s>", 0)]
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND = {"type": "Prepend", "prepend": "▁"}
QWEN_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def qwen() -> dict[str, Any]:
    made = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], qwen_end)
    split = {"type": "Split", "pattern": {"Regex": QWEN_SPLIT}, "behavior": "Isolated", "invert": False}
    byte = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return made | {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte]},
    }


def modernbert() -> dict[str, Any]:
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    pair = [(name, 0) for name in ("[CLS]", "$A", "[SEP]", "$B", "[SEP]")]
    made = byte_level(special, lambda ids: template("[CLS]", "[SEP]", pair, ids))
    return made | {"normalizer": {"type": "NFC"}}


TABLE = charsmap("W", "w")
STRIP, SPACES = {"type": "Strip", "strip_left": False, "strip_right": True}, {"Regex": " {2,}"}
QUOTES = [replaced({"String": quotes}, '"') for quotes in ("``", "''")]
FLAT = [{"type": kind} for kind in ("NFKD", "StripAccents", "Lowercase")]
# As transformers 4 writes them, of a SentencePiece model with a table of characters.
OLD_T5 = several(TABLE, STRIP, replaced(SPACES, "▁"))
OLD_ALBERT = several(*QUOTES, *FLAT, TABLE, replaced(SPACES, " "))
OLD_DEBERTA = several(STRIP | {"strip_left": True}, TABLE, replaced(SPACES, " "))
# As version 5 does.
NEW_DEBERTA = several(replaced({"Regex": r"\s{2,}|[\n\r\t]"}, " "), {"type": "NFC"}, STRIP)
SPLIT_AT_SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
FILES = {
    "bert": wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "[CLS]", "[SEP]", TYPED, "[UNK]"),
    "mpnet": wordpiece(["<s>", "<pad>", "</s>", "[UNK]", "<mask>"], "<s>", "</s>", UNTYPED, "[UNK]"),
    "roberta": byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], roberta),
    "xlm-roberta": unigram(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
    "camembert": unigram(["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<s>", "</s>", "<mask>"]),
    # Without a normalizer; with that which transformers 4 writes, and with version 5's, see `cases`.
    "t5": unigram(["<pad>", "</s>", "<unk>"], ends=("", "</s>", [(n, 0) for n in ("$A", "</s>", "$B", "</s>")])),
    "albert": unigram(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], ends=("[CLS]", "[SEP]", TYPED)),
    "deberta-v2": unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], "[UNK]", ("[CLS]", "[SEP]", TYPED)),
    "modernbert": modernbert(),
    "qwen": qwen(),
    # The normalizer that transformers 4 writes for Llama and Mistral.
    "llama": sentencepiece_bpe(
        ["<unk>", "<s>", "</s>"], "<s>", {"type": "Sequence", "normalizers": [PREPEND, REPLACE]}, None
    ),
    "gemma": sentencepiece_bpe(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], "<bos>", REPLACE, SPLIT_AT_SPACES),
}
BERT, DISTILBERT, MPNET = ({"tokenizer_class": f"{name}Tokenizer"} for name in ("Bert", "DistilBert", "MPNet"))
ROBERTA, XLMR, CAMEMBERT = ({"tokenizer_class": f"{name}Tokenizer"} for name in ("Roberta", "XLMRoberta", "Camembert"))
QWEN, LLAMA, GEMMA = ({"tokenizer_class": f"{name}Tokenizer"} for name in ("Qwen2", "Llama", "Gemma"))
T5, ALBERT, DEBERTA = ({"tokenizer_class": f"{name}Tokenizer"} for name in ("T5", "Albert", "DebertaV2"))
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
LEFT = {"truncation": {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}}
PAD_LEFT = {
    "padding": {
        "strategy": "BatchLongest",
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
}
CASED = {"normalizer": bert_normalizer(lowercase=False)}
ACCENTS = {"normalizer": bert_normalizer(strip_accents=False)}
WHOLE_CHINESE = {"normalizer": bert_normalizer(handle_chinese_chars=False)}
# What sentence-transformers saves for do_lower_case=True over a cased tokenizer.
LOWERED = {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, bert_normalizer(lowercase=False)]}}
WITHOUT_END = {
    "post_processor": template("[CLS]", "", [("[CLS]", 0), ("$A", 0), ("$B", 1)], FILES["bert"]["model"]["vocab"])
}
ONE_TOKEN_MORE = {
    "added_tokens": [*FILES["bert"]["added_tokens"], FILES["bert"]["added_tokens"][1] | {"id": 60, "content": "it's"}]
}


def cases() -> Iterator[dict[str, Any]]:
    """The folders: a file, changes of its parts, tokenizer_config.json, other files, config.json's model_type."""

    def case(file: str, model_type: str, settings: dict[str, Any], change: Any = None, **others: Any) -> dict[str, Any]:
        return {
            "file": file,
            "model_type": model_type,
            "tokenizer_config": settings,
            **({"change": change} if change else {}),
            **others,
        }

    # Which class is taken, and what it makes of a file that says the opposite of its defaults.
    odd = CASED | WITHOUT_END
    for name in (
        *("Bert", "BertTokenizerFast", "DistilBert", "DistilBertTokenizerFast", "Electra", "LayoutLM", "MobileBert"),
        *("SqueezeBert", "ConvBert", "Lxmert", "DPRQuestionEncoder", "Funnel", "Splinter", "RetriBert", "Realm"),
        *("NomicBert", "PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer", "NoSuch", "MPNet"),
    ):
        full = name if "Token" in name else f"{name}Tokenizer"
        yield case("bert", "bert", {"tokenizer_class": full} | tokens(_BRACKETS), odd)
    yield case("bert", "bert", {}, odd)
    yield case("bert", "bert", tokens(_BRACKETS), odd)
    for model_type in ("distilbert", "nomic_bert", "electra", "layoutlm", "modernbert", "new", "gte", "mpnet"):
        yield case("bert", model_type, {}, odd)
        yield case("bert", model_type, BERT, odd)
    yield case("bert", "modernbert", FAST, odd)
    yield case("bert", "distilbert", DISTILBERT, odd)
    yield case("bert", "electra", {"tokenizer_class": "ElectraTokenizer"}, odd)
    yield case("bert", "layoutlm", {"tokenizer_class": "LayoutLMTokenizer"}, odd)
    # BERT's keys, each against a file that agrees and one that does not.
    for change in (None, CASED, ACCENTS, WHOLE_CHINESE, LOWERED):
        for keys in (
            *({}, {"do_lower_case": True}, {"do_lower_case": False}, {"strip_accents": True}),
            *({"strip_accents": False}, {"tokenize_chinese_chars": False}, {"tokenize_chinese_chars": True}),
            {"do_lower_case": False, "strip_accents": True},
        ):
            yield case("bert", "bert", BERT | keys, change)
    for keys in ({"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}):
        yield case("bert", "bert", FAST | keys)
        yield case("bert", "distilbert", DISTILBERT | keys)
        yield case("mpnet", "mpnet", MPNET | keys)
        yield case("bert", "electra", {"tokenizer_class": "ElectraTokenizer"} | keys)
    yield case("bert", "bert", FAST, LOWERED)
    yield case("mpnet", "mpnet", MPNET, CASED)
    yield case("mpnet", "mpnet", MPNET, LOWERED)
    yield case("mpnet", "mpnet", {}, CASED)
    yield case("mpnet", "mpnet", FAST, CASED)
    # Parts of the file that a class has no key for.
    for change in (
        *({"normalizer": None}, {"normalizer": {"type": "NFKC"}}, {"pre_tokenizer": {"type": "WhitespaceSplit"}}),
        *({"model": {"max_input_chars_per_word": 3}}, {"model": {"continuing_subword_prefix": "@@"}}, WITHOUT_END),
        *({"model": {"unk_token": "[MASK]"}}, ONE_TOKEN_MORE, {"post_processor": None}, {"model": {"type": None}}),
    ):
        yield case("bert", "bert", BERT, change)
        yield case("bert", "bert", FAST, change)
    # Keys of every class.
    for keys in (
        *({"truncation_side": "left"}, {"truncation_side": "right"}, {"padding_side": "left"}, {"model_max_length": 5}),
        *({"max_len": 5}, {"model_max_length": 5, "max_len": 7}, {"model_max_length": 1e30}, {"max_length": 5}),
        *({"model_input_names": ["input_ids", "attention_mask"]}, {"add_bos_token": True}, {"add_eos_token": True}),
        *({"split_special_tokens": True}, {"cls_token": "[MASK]"}, {"sep_token": "x"}, {"unk_token": "x"}),
        *({"additional_special_tokens": ["it"]}, {"extra_special_tokens": ["it"]}, {"mask_token": "wing"}),
        *({"sep_token": None}, {"cls_token": {"__type": "AddedToken", "content": "x", "lstrip": True}}),
        *({"never_split": ["it's"]}, {"wordpieces_prefix": "@@"}, {"clean_text": False}, {"token_type_ids": False}),
        {"added_tokens_decoder": {"30": {"content": "it's", "special": True, "normalized": False}}},
        {"added_tokens_decoder": {"4": {"content": "[MASK]", "special": True, "lstrip": True, "normalized": False}}},
    ):
        yield case("bert", "bert", BERT | keys)
        yield case("bert", "bert", FAST | tokens(_BRACKETS) | keys)
    for keys in ({}, {"truncation_side": "right"}, {"truncation_side": "left"}):
        yield case("bert", "bert", BERT | keys, LEFT)
        yield case("bert", "bert", FAST | tokens(_BRACKETS) | keys, LEFT)
    yield case("bert", "bert", BERT, PAD_LEFT)
    yield case("roberta", "roberta", ROBERTA, LEFT)
    yield case("xlm-roberta", "xlm-roberta", XLMR, LEFT)
    yield case("qwen", "qwen3", QWEN, LEFT)
    # Other files beside them, and files instead of tokenizer.json.
    maps = {"special_tokens_map.json": {"cls_token": "x", "mask_token": {"content": "wing", "lstrip": True}}}
    for config in (BERT, FAST | tokens(_BRACKETS), BERT | {"added_tokens_decoder": {}}):
        yield case("bert", "bert", config, others=maps)
        yield case("bert", "bert", config, others={"added_tokens.json": {"it's": 31}})
    vocabulary = list(FILES["bert"]["model"]["vocab"])
    for config in (BERT, BERT | {"do_lower_case": False}, FAST, {}):
        yield case("", "bert", config, others={"vocab.txt": vocabulary})
    yield case("bert", "bert", BERT, others={"vocab.txt": vocabulary[::-1]})
    # Byte-level BPE of RoBERTa's.
    prefix = {"pre_tokenizer": FILES["roberta"]["pre_tokenizer"] | {"add_prefix_space": True}}
    for change in (None, prefix):
        for keys in ({}, {"add_prefix_space": True}, {"add_prefix_space": False}):
            yield case("roberta", "roberta", ROBERTA | keys, change)
            yield case("roberta", "roberta", FAST | tokens(_ANGLES) | keys, change)
            yield case("modernbert", "modernbert", FAST | tokens(_BRACKETS) | keys, change)
    for name in ("Longformer", "Bart", "GPT2", "Deberta", "RobertaTokenizerFast"):
        full = name if "Token" in name else f"{name}Tokenizer"
        yield case("roberta", "roberta", {"tokenizer_class": full} | tokens(_ANGLES), prefix)
    yield case("roberta", "roberta", {}, prefix)
    yield case("roberta", "xlm-roberta", ROBERTA, prefix)
    yield case("roberta", "roberta", ROBERTA | {"add_bos_token": False, "add_eos_token": False})
    yield case("roberta", "roberta", ROBERTA | {"trim_offsets": False})
    yield case("roberta", "roberta", ROBERTA | {"cls_token": "<mask>", "sep_token": "<unk>"})
    yield case("roberta", "roberta", ROBERTA, {"post_processor": None})
    yield case("roberta", "roberta", ROBERTA, {"normalizer": {"type": "NFC"}})
    yield case("roberta", "roberta", ROBERTA, {"normalizer": {"type": "Lowercase"}})
    yield case(
        "roberta", "roberta", ROBERTA | {"mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True}}
    )
    for config in (BERT | tokens(_BRACKETS), ROBERTA, {}, {"tokenizer_class": "ModernBertTokenizer"}):
        yield case("modernbert", "modernbert", config)
    # Unigram.
    never = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace("never")]}}
    for file, model_type, config in (("xlm-roberta", "xlm-roberta", XLMR), ("camembert", "camembert", CAMEMBERT)):
        for change in (None, never):
            for keys in ({}, {"add_prefix_space": True}, {"add_prefix_space": False}):
                yield case(file, model_type, config | keys, change)
        yield case(file, model_type, {}, never)
        yield case(file, model_type, FAST | tokens(_ANGLES), never)
        yield case(file, model_type, config | {"do_lower_case": True})
        yield case(file, model_type, config, {"normalizer": {"type": "Lowercase"}})
        yield case(file, model_type, config, {"pre_tokenizer": metaspace()})
        yield case(file, model_type, config, {"post_processor": None})
        yield case(file, model_type, config | {"cls_token": "<mask>", "sep_token": "<unk>"})
        yield case(file, model_type, config | {"bos_token": "<mask>", "eos_token": "<unk>"})
        yield case(file, model_type, config | {"add_bos_token": False, "add_eos_token": False})
        yield case(file, model_type, config, {"model": {"unk_id": 1}})
    for config in (XLMR, {"tokenizer_class": "XLMRobertaTokenizerFast"}, {}, FAST | tokens(_ANGLES)):
        yield case("xlm-roberta", "new", config, never)
        yield case("xlm-roberta", "gte", config, never)
    # A class of another kind than the file: a mistake of a checkpoint's author that does no harm in transformers 4.
    for config in (BERT, XLMR, FAST, {}, BERT | {"do_lower_case": False}):
        yield case("xlm-roberta", "bert", config | tokens(_ANGLES), {"normalizer": {"type": "NFKC"}})
    for config in (XLMR, ROBERTA, FAST):
        yield case("bert", "xlm-roberta", config | tokens(_BRACKETS) | {"bos_token": "[CLS]", "eos_token": "[SEP]"})
    yield case("roberta", "bert", tokens(_ANGLES))
    # Where config.json names the class, and where there is no tokenizer_config.json.
    for config in ({}, BERT, {"tokenizer_class": None}):
        yield case("bert", "bert", config, CASED, config={"tokenizer_class": "DistilBertTokenizer"})
        yield case("bert", "modernbert", config, CASED, config={"tokenizer_class": "BertTokenizer"})
        yield case("bert", "new", config, CASED, config={"tokenizer_class": "BertTokenizer"})
    for file, model_type in (("bert", "bert"), ("roberta", "roberta"), ("xlm-roberta", "xlm-roberta")):
        yield case(file, model_type, {}, PAD_LEFT if file == "bert" else None, bare=True)
    # Unigram models of other classes, with their own table of characters and without.
    for change in (None, OLD_T5, {"pre_tokenizer": metaspace()}, {"post_processor": None}, {"model": {"unk_id": 0}}):
        yield case("t5", "t5", T5, change)
    for keys in ({"add_prefix_space": False}, {"additional_special_tokens": ["<extra_id_0>"], "extra_ids": 1}):
        yield case("t5", "t5", T5 | keys, OLD_T5)
    for change in (None, OLD_ALBERT, several(TABLE), {"pre_tokenizer": metaspace()}, {"model": {"unk_id": 0}}):
        yield case("albert", "albert", ALBERT, change)
    for keys in (
        *({"do_lower_case": False}, {"keep_accents": True}, {"add_prefix_space": False}, {"add_prefix_space": None}),
        {"do_lower_case": False, "keep_accents": True},
    ):
        yield case("albert", "albert", ALBERT | keys, OLD_ALBERT)
    for change in (None, OLD_DEBERTA, NEW_DEBERTA, {"post_processor": None}, {"model": {"unk_id": 0}}):
        yield case("deberta-v2", "deberta-v2", DEBERTA, change)
    for keys in (
        *({"do_lower_case": True}, {"split_by_punct": True}, {"add_prefix_space": False}, {"do_lower_case": None}),
        {"unk_token": "<blank>"},
    ):
        yield case("deberta-v2", "deberta-v2", DEBERTA | keys, NEW_DEBERTA)
    for config in ({}, FAST):
        yield case("t5", "t5", config, OLD_T5)
        yield case("albert", "albert", config, OLD_ALBERT)
        yield case("deberta-v2", "deberta-v2", config, NEW_DEBERTA)
    # Decoders: bos and eos.
    ends: tuple[dict[str, Any], ...] = (
        *({}, {"add_eos_token": True}, {"add_bos_token": True}, {"add_bos_token": False}),
        {"add_bos_token": True, "add_eos_token": True},
    )
    qwen_tokens = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    for change in (None, {"post_processor": None}):
        for keys in ends:
            yield case("qwen", "qwen3", QWEN | qwen_tokens | keys, change)
            yield case("llama", "mistral", LLAMA | tokens(_ANGLES, "bos", "eos", "unk") | keys, change)
            yield case("llama", "llama", LLAMA | tokens(_ANGLES, "bos", "eos", "unk") | keys, change)
            gemma = {f"{role}_token": f"<{role}>" for role in ("bos", "eos", "unk", "pad")}
            yield case("gemma", "gemma3_text", GEMMA | gemma | keys, change)
    for config in (FAST, {}, {"tokenizer_class": "Qwen2TokenizerFast"}, LLAMA | {"add_eos_token": True}):
        yield case("qwen", "qwen2", config | qwen_tokens)
        yield case("qwen", "qwen3", config | qwen_tokens)
        yield case("qwen", "mistral", config | qwen_tokens)
        yield case("qwen", "llama", config | qwen_tokens)
    for keys in ({"add_prefix_space": True}, {"add_prefix_space": False}, {"legacy": True}, {"legacy": False}):
        yield case("llama", "mistral", LLAMA | tokens(_ANGLES, "bos", "eos", "unk") | keys)
        yield case("llama", "llama", LLAMA | tokens(_ANGLES, "bos", "eos", "unk") | keys)
    yield case("qwen", "qwen3", QWEN | qwen_tokens | {"add_prefix_space": True})
    yield case("qwen", "qwen3", QWEN | qwen_tokens, {"normalizer": None})
    yield case("qwen", "qwen3", QWEN | qwen_tokens, {"pre_tokenizer": FILES["roberta"]["pre_tokenizer"]})
    yield case("gemma", "gemma3_text", FAST)
    yield case("gemma", "gemma3_text", {})
    yield case("gemma", "gemma3_text", GEMMA, {"normalizer": None})
    yield case("gemma", "gemma3_text", GEMMA, {"pre_tokenizer": None})


def write(folder: Path, case: dict[str, Any], files: dict[str, Any]) -> None:
    """Make the folder of a case."""
    (folder / "config.json").write_text(json.dumps({"model_type": case["model_type"], **case.get("config", {})}))
    if not case.get("bare"):
        (folder / "tokenizer_config.json").write_text(json.dumps(case["tokenizer_config"]))
    if case["file"]:
        state = json.loads(json.dumps(files[case["file"]]))
        for part, change in case.get("change", {}).items():
            state[part] = state[part] | change if part == "model" else change
        if state["model"]["type"] is None:  # as old files are
            del state["model"]["type"]
        (folder / "tokenizer.json").write_text(json.dumps(state))
    for name, content in case.get("others", {}).items():
        text = "\n".join(content) + "\n" if isinstance(content, list) else json.dumps(content)
        (folder / name).write_text(text)


def seen(folder: Path) -> dict[str, Any]:
    """What transformers makes of a folder."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        state = json.loads(tokenizer.backend_tokenizer.to_str())
    except BaseException as error:
        return {"error": type(error).__name__}
    result: dict[str, Any] = {
        "class": type(tokenizer).__name__,
        "names": tokenizer.model_input_names,
        "truncation_side": tokenizer.truncation_side,
        "padding_side": tokenizer.padding_side,
        "model_max_length": min(tokenizer.model_max_length, 10**30),
        "normalizer": state["normalizer"],
        "pre_tokenizer": state["pre_tokenizer"],
        "post_processor": state["post_processor"],
        "model": {k: v for k, v in state["model"].items() if k not in ("vocab", "merges")},
        "added": {t["content"]: t["id"] for t in state["added_tokens"]},
    }
    try:
        result["ids"] = [tokenizer(text)["input_ids"] for text in TEXTS]
        pairs = [tokenizer(*pair, return_token_type_ids=True) for pair in PAIRS]
        result["pairs"] = [[pair["input_ids"], pair["token_type_ids"]] for pair in pairs]
        result["cut"] = tokenizer(LONG, truncation=True, max_length=CUT)["input_ids"]
        result["cut_pair"] = tokenizer("the wing of", LONG, truncation=True, max_length=CUT + 2)["input_ids"]
        result["default_cut"] = tokenizer(LONG, truncation=True)["input_ids"]
    except BaseException as error:
        result["error"] = type(error).__name__
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--add", action="store_true", help="add what this version of transformers does differently")
    add = parser.parse_args().add
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    versions = {name: version(name) for name in ("transformers", "tokenizers")}
    if add:
        table = json.loads(PATH.read_text())
        table["others"] = {**table.get("others", {}), versions["transformers"]: versions}
    else:
        asked = {"texts": TEXTS, "pairs": PAIRS, "long": LONG, "cut": CUT}
        table = {"versions": versions, **asked, "files": FILES, "values": [], "cases": []}
    values: list[Any] = table["values"]

    def place(value: Any) -> int:
        if value not in values:
            values.append(value)
        return values.index(value)

    for case in table["cases"] if add else list(cases()):
        change = {part: values[value] if add else value for part, value in case.get("change", {}).items()}
        with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
            write(Path(name), case | {"change": change}, table["files"])
            found = seen(Path(name))
        ids = {key: found.get(key) for key in ("error", "ids", "pairs", "cut", "cut_pair", "default_cut")}
        outcome = {key: place(value) if key in NUMBERED else value for key, value in found.items()}
        if add:
            expected = values[case["expect"]]
            right = {key: values[expected[key]] if key in NUMBERED else expected[key] for key in ids.keys() & expected}
            if {key: value for key, value in ids.items() if value is not None} != right:
                case.setdefault("other", {})[versions["transformers"]] = place(outcome)
            continue
        if "change" in case:
            case["change"] = {part: place(value) for part, value in case["change"].items()}
        table["cases"].append(case | {"expect": place(outcome)})
    rows = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in table.pop("cases"))
    head = json.dumps(table, ensure_ascii=False, separators=(",", ":"))
    PATH.write_text(f'{head[:-1]},"cases":[\n{rows}\n]}}\n')


if __name__ == "__main__":
    main()
