"""The tokenizer classes of transformers 5: which one it takes for a checkpoint, and what that one makes of the files.

transformers takes tokenizer.json as it is for generic classes only. A class with rules of its own keeps the file's
vocabulary, added tokens and post-processor, and makes the rest anew by its rules and by tokenizer_config.json. Where
that loses what the checkpoint's vectors were made with, the file wins: docs/checkpoints.md lists the cases.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from mlx_embed.errors import CheckpointError, UnsupportedModelError, warn
from mlx_embed.tokenizer import special
from mlx_embed.tokenizer.special import End

Settings: TypeAlias = Mapping[str, Any]

Tokens: TypeAlias = dict[str, str | AddedToken]

_BRACKETS: Tokens = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_ANGLES: Tokens = {
    "bos": "<s>",
    "eos": "</s>",
    "unk": "<unk>",
    "sep": "</s>",
    "pad": "<pad>",
    "cls": "<s>",
    "mask": "<mask>",
}
# The space before a mask belongs to it.
_WIDE_MASK: Tokens = {"mask": AddedToken("<mask>", lstrip=True, special=True)}
_GPT2 = dict.fromkeys(("unk", "bos", "eos"), "<|endoftext|>")
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# A character that no vocabulary has: Unicode keeps it free.
_UNSEEN = "\U0010ffff"


@dataclass(frozen=True)
class TokenizerClass:
    """What a class makes of a vocabulary.

    Attributes:
        model: the kind of vocabulary that it takes.
        tokens: its special tokens by role, where the checkpoint names no others.
        body: given a new tokenizer, the file's, tokenizer_config.json and the unknown token, sets normalizer,
            pre-tokenizer and the model's options; None keeps the file's.
        ends: the post-processor, of the first and the last special token of a text; None keeps the file's.
        roles: of these two.
        token_types: whether it tells which of a pair's texts a token is of.
        extra: more tokens that it adds.
    """

    model: type[models.Model]
    tokens: Mapping[str, str | AddedToken]
    body: Callable[[Tokenizer, Tokenizer, Settings, str], None] | None
    ends: Callable[[End, End], processors.PostProcessor] | None = None
    roles: tuple[str, str] = ("cls", "sep")
    token_types: bool = False
    extra: tuple[str, ...] = ()


def flag(settings: Settings, key: str, default: bool) -> bool:
    """A key of tokenizer_config.json that is true or false; CheckpointError where it is neither."""
    value = settings.get(key, default)
    if not isinstance(value, bool):
        raise CheckpointError(f'tokenizer_config.json has "{key}": {value!r}, where true or false is needed.')
    return value


def optional_flag(settings: Settings, key: str, default: bool | None = None) -> bool | None:
    """As `flag`, where null is as good as absent."""
    return default if settings.get(key) is None else flag(settings, key, False)


def state(part: Any) -> dict[str, Any]:
    """A normalizer, pre-tokenizer or post-processor as tokenizer.json has it; empty where there is none."""
    return {} if part is None else json.loads(part.__getstate__())


def normalizer_steps(normalizer: Any) -> list[dict[str, Any]]:
    """A normalizer's steps."""
    found = state(normalizer)
    return found.get("normalizers", [found])


def lowercased(normalizer: Any) -> Any:
    """A normalizer that lowercases first, unless a step of it does nothing else."""
    if any(part.get("type") == "Lowercase" for part in normalizer_steps(normalizer)):
        return normalizer
    steps = [] if normalizer is None else [normalizer]
    return normalizers.Sequence([normalizers.Lowercase(), *steps])


def _wordpiece(made: Tokenizer, file: Tokenizer, settings: Settings, unknown: str) -> None:
    model: Any = made.model
    model.unk_token, model.continuing_subword_prefix, model.max_input_chars_per_word = unknown, "##", 100
    if any(part.get("type") == "Lowercase" for part in state(file.normalizer).get("normalizers", [])):
        # sentence-transformers saves its own do_lower_case as a step of the file's normalizer and nowhere else.
        made.normalizer = file.normalizer
    else:
        made.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=flag(settings, "tokenize_chinese_chars", True),
            strip_accents=optional_flag(settings, "strip_accents"),
            lowercase=flag(settings, "do_lower_case", True),
        )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def _dpr(made: Tokenizer, file: Tokenizer, settings: Settings, unknown: str) -> None:
    _wordpiece(made, file, dict(settings) | {"do_lower_case": True}, unknown)  # which it does not hand on


def _bpe(made: Tokenizer, unknown: str | None = None, fuse: bool = False, fallback: bool = False) -> None:
    model: Any = made.model
    model.unk_token, model.fuse_unk, model.byte_fallback = unknown, fuse, fallback
    model.dropout, model.ignore_merges = None, False


def _byte_level(made: Tokenizer, file: Tokenizer, settings: Settings, unknown: str) -> None:
    _bpe(made)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=flag(settings, "add_prefix_space", False))


def _qwen2(made: Tokenizer, file: Tokenizer, settings: Settings, unknown: str) -> None:
    _bpe(made)
    made.normalizer = normalizers.NFC()
    space = bool(optional_flag(settings, "add_prefix_space"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False),
        ]
    )


def _llama(made: Tokenizer, file: Tokenizer, settings: Settings, unknown: str) -> None:
    _bpe(made, fuse=True, fallback=True)
    scheme = "always" if flag(settings, "legacy", False) else "first"
    if optional_flag(settings, "add_prefix_space") is False:
        scheme = "never"
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False)


def _gemma(made: Tokenizer, file: Tokenizer, settings: Settings, unknown: str) -> None:
    _bpe(made, unknown, fuse=True, fallback=True)
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")


def _xlm_roberta(made: Tokenizer, file: Tokenizer, settings: Settings, unknown: str) -> None:
    _sentencepiece(made, file, settings, 3)


def _camembert(made: Tokenizer, file: Tokenizer, settings: Settings, unknown: str) -> None:
    _sentencepiece(made, file, settings, file.model.token_to_id(unknown) or 0)


def _t5(made: Tokenizer, file: Tokenizer, settings: Settings, unknown: str) -> None:
    _sentencepiece(made, file, {}, 2)


def _albert(made: Tokenizer, file: Tokenizer, settings: Settings, unknown: str) -> None:
    _sentencepiece(made, file, {"add_prefix_space": _given(settings, "add_prefix_space", True)}, 1)
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not _given(settings, "keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if _given(settings, "do_lower_case", True):
        steps.append(normalizers.Lowercase())
    made.normalizer = normalizers.Sequence([*steps, *([made.normalizer] if made.normalizer is not None else [])])


def _deberta_v2(made: Tokenizer, file: Tokenizer, settings: Settings, unknown: str) -> None:
    if _charsmap(file) is not None:
        # Version 5 drops the table by which SentencePiece reads characters; the models were trained with it.
        made.normalizer, made.pre_tokenizer = file.normalizer, file.pre_tokenizer
        return
    number = file.model.token_to_id(unknown)
    _unigram(made, file, 1 if number is None else number)
    steps: list[Any] = [normalizers.Lowercase()] if _given(settings, "do_lower_case", False) else []
    spaces = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    made.normalizer = normalizers.Sequence([*steps, spaces, normalizers.NFC(), normalizers.Strip(left=False)])
    scheme = "always" if _given(settings, "add_prefix_space", True) else "first"
    parts: list[Any] = [pre_tokenizers.Punctuation("isolated")] if _given(settings, "split_by_punct", False) else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*parts, pre_tokenizers.Metaspace("▁", prepend_scheme=scheme)])


def _given(settings: Settings, key: str, default: bool) -> bool:
    """A key that is true or false, where null is false."""
    return bool(optional_flag(settings, key)) if key in settings else default


def _sentencepiece(made: Tokenizer, file: Tokenizer, settings: Settings, unknown: int) -> None:
    _unigram(made, file, unknown)
    table = _charsmap(file)
    if table is not None:
        made.normalizer = normalizers.Precompiled(base64.b64decode(table))
    scheme = "always" if flag(settings, "add_prefix_space", True) else "never"
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", prepend_scheme=scheme)]
    )


def _unigram(made: Tokenizer, file: Tokenizer, unknown: int) -> None:
    """The file's pieces, with this id for what is in none."""
    if not _has_unknown(file.model, unknown):
        vocabulary = json.loads(file.to_str())["model"]["vocab"]
        made.model = models.Unigram([(piece, score) for piece, score in vocabulary], unknown, False)


def _charsmap(file: Tokenizer) -> str | None:
    """The table by which SentencePiece reads characters, in base64."""
    steps = normalizer_steps(file.normalizer)
    return next((part["precompiled_charsmap"] for part in steps if part.get("type") == "Precompiled"), None)


def _has_unknown(model: models.Model, unknown: int) -> bool:
    """Whether a Unigram model gives this id to what it does not know, and no bytes."""
    try:
        return [token.id for token in model.tokenize(_UNSEEN)] == [unknown]
    except Exception:  # the library's own, where the model names no such id
        return False


def _typed(first: End, last: End) -> processors.PostProcessor:
    return processors.BertProcessing(last, first)


def _untyped(first: End, last: End) -> processors.PostProcessor:
    return processors.RobertaProcessing(last, first)


def _text_end(first: End, last: End) -> processors.PostProcessor:
    """The last behind each text, whose name is T5's even where the checkpoint has another."""
    ends = [("</s>", last[1])]
    return processors.TemplateProcessing(single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=ends)


def typed_ends(first: End, last: End) -> processors.PostProcessor:
    """BERT's: the first before a text, the last behind each, the second text's tokens of type 1."""
    single = f"{first[0]}:0 $A:0 {last[0]}:0"
    return processors.TemplateProcessing(single=single, pair=f"{single} $B:1 {last[0]}:1", special_tokens=[first, last])


_FILE = TokenizerClass(models.Model, {}, None)
_TYPED_FILE = TokenizerClass(models.Model, {}, None, token_types=True)
_BERT = TokenizerClass(models.WordPiece, _BRACKETS, _wordpiece, _typed, token_types=True)
_DPR = TokenizerClass(models.WordPiece, _BRACKETS, _dpr, _typed, token_types=True)
_ROBERTA = TokenizerClass(models.BPE, _ANGLES, _byte_level, _untyped)
# By name, without "Tokenizer" or "TokenizerFast" at the end.
CLASSES: dict[str, TokenizerClass] = {
    **dict.fromkeys(("Bert", "Electra", "LayoutLM", "Lxmert", "MobileBert", "SqueezeBert"), _BERT),
    **dict.fromkeys(("DPRContextEncoder", "DPRQuestionEncoder"), _DPR),
    "DPRReader": replace(_DPR, token_types=False),
    "ConvBert": replace(_BERT, body=None),
    "FNet": _TYPED_FILE,
    "DistilBert": replace(_BERT, token_types=False),
    "MPNet": TokenizerClass(models.WordPiece, {**_ANGLES, **_WIDE_MASK, "unk": "[UNK]"}, _wordpiece, _untyped),
    **dict.fromkeys(("Roberta", "Bart", "LED", "Longformer", "Mvp"), _ROBERTA),
    "Deberta": TokenizerClass(
        models.BPE,
        {**_BRACKETS, "bos": "[CLS]", "eos": "[SEP]", "mask": AddedToken("[MASK]", lstrip=True, special=True)},
        _byte_level,
        _untyped,
        token_types=True,
    ),
    "GPT2": TokenizerClass(models.BPE, _GPT2, _byte_level),
    "XLMRoberta": TokenizerClass(models.Unigram, _ANGLES, _xlm_roberta, _untyped, ("bos", "eos")),
    "Camembert": TokenizerClass(
        models.Unigram,
        _ANGLES | _WIDE_MASK,
        _camembert,
        _untyped,
        ("bos", "eos"),
        extra=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"),
    ),
    "Albert": TokenizerClass(models.Unigram, {**_BRACKETS, "unk": "<unk>", "pad": "<pad>"}, _albert),
    "DebertaV2": TokenizerClass(
        models.Unigram, {**_BRACKETS, "bos": "[CLS]", "eos": "[SEP]"}, _deberta_v2, typed_ends, token_types=True
    ),
    "T5": TokenizerClass(
        models.Unigram,
        {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
        _t5,
        _text_end,
        ("eos", "eos"),
        extra=tuple(f"<extra_id_{number}>" for number in range(100)),
    ),
    "Qwen2": TokenizerClass(models.BPE, dict.fromkeys(("unk", "eos", "pad"), "<|endoftext|>"), _qwen2),
    "Llama": TokenizerClass(models.BPE, {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}, _llama),
    "Gemma": TokenizerClass(models.BPE, {role: f"<{role}>" for role in ("unk", "bos", "eos", "pad", "mask")}, _gemma),
}

# Where neither file names a class: what transformers has for config.json's model_type. None is a generic class, which
# takes tokenizer.json as it is whatever class is named; so does a model_type that is not listed, if none is named.
_REGISTERED: dict[str, str | None] = {
    **dict.fromkeys(("bert", "distilbert", "electra", "layoutlm", "nomic_bert"), "Bert"),
    "mpnet": "MPNet",
    "roberta": "Roberta",
    **dict.fromkeys(("gte", "xlm-roberta"), "XLMRoberta"),
    "camembert": "Camembert",
    **dict.fromkeys(("qwen2", "qwen3"), "Qwen2"),
    "gemma3_text": "Gemma",
    "albert": "Albert",
    "deberta-v2": "DebertaV2",
    "t5": "T5",
    **dict.fromkeys(("mistral", "modernbert", "modernbert-decoder"), None),
}
# transformers holds that checkpoints of these name the wrong class.
_MISNAMED = ("modernbert", "qwen2")

# Classes of transformers that rebuild tokenizer.json by rules which are not written here.
_TYPED_ELSEWHERE = {"LayoutLMv2", "MarkupLM"}
_ELSEWHERE = _TYPED_ELSEWHERE | {
    *("Barthez", "BigBird", "Blenderbot", "CLIP", "CodeGen", "CodeLlama", "Cohere", "Esmc", "Funnel"),
    *("GPTNeoX", "Herbert", "Lasr", "LayoutLMv3", "LayoutXLM", "Luke", "MBart", "MBart50", "MLuke", "Nllb"),
    *("Nougat", "OpenAIGPT", "Pegasus", "Qwen3_5", "Reformer", "RemBert", "RoFormer", "SeamlessM4T", "Siglip2"),
    *("Splinter", "Tipsv2", "Udop", "VideoPrism", "Whisper", "XGLM", "XLNet"),
}
# Classes of which transformers 4 obeys add_bos_token and add_eos_token.
FLAGGED = {"Llama": ("<s>", "</s>"), "CodeLlama": ("<s>", "</s>"), "Gemma": ("<bos>", "<eos>")}

# Classes of transformers that read no tokenizer.json at all.
_PYTHON = {
    *("Bartpho", "BertGeneration", "BertJapanese", "Bertweet", "BioGpt", "BlenderbotSmall", "ByT5", "Canine"),
    *("Clvp", "Cpm", "CpmAnt", "CTRL", "Dia", "Esm", "FastSpeech2Conformer", "Flaubert", "FSMT"),
    *("GPTNeoXJapanese", "GPTSw3", "M2M100", "Marian", "Mgpstr", "MyT5", "Perceiver", "Phobert", "PLBart"),
    *("Pop2Piano", "ProphetNet", "Rag", "RoCBert", "Siglip", "Speech2Text", "SpeechT5", "Tapas", "Vits"),
    *("Wav2Vec2CTC", "Wav2Vec2PhonemeCTC", "XLM"),
}


def named(config: Settings, settings: Settings) -> str | None:
    """The class that transformers takes, of config.json and tokenizer_config.json; None is a generic one."""
    model_type = config.get("model_type", "")
    hub = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if hub is not None and not isinstance(hub, str):
        raise CheckpointError(f'The checkpoint has "tokenizer_class": {hub!r}, where a name is needed.')
    registered = _REGISTERED.get(model_type)
    if hub is None:
        return None if registered is None else f"{registered}Tokenizer"
    if bare(hub) != registered and model_type in _REGISTERED:
        if registered is None:
            return None
        if model_type in _MISNAMED:
            return f"{registered}Tokenizer"
    return hub


def bare(name: str) -> str:
    """A class's name as CLASSES has it."""
    return name.removesuffix("Fast").removesuffix("Tokenizer") if "Tokenizer" in name else ""


def class_of(name: str | None, file: Tokenizer) -> TokenizerClass:
    """The class of this name, for a tokenizer.json; one that takes it as it is where transformers knows none.

    Raises:
        UnsupportedModelError: a class that does not read tokenizer.json.
    """
    short = "" if name is None else bare(name)
    if short in _PYTHON:
        raise UnsupportedModelError(
            f"The tokenizer's class is {name}, which makes its tokens without tokenizer.json; mlx_embed cannot."
        )
    if short in _ELSEWHERE:
        warn(
            f"transformers rebuilds tokenizer.json by the rules of {name}, which mlx_embed does not have: the file is "
            "taken as it is. Compare some token ids with those of transformers."
        )
        return _TYPED_FILE if short in _TYPED_ELSEWHERE else _FILE
    kind = CLASSES.get(short, _FILE)
    if short == "Llama" and _byte_level_file(file):
        return _FILE  # Llama 3's, which name the class of those before
    if not isinstance(file.model, kind.model):
        # transformers 5 would read the pieces as words of the class's vocabulary, and know hardly any text.
        return _TYPED_FILE if kind.token_types else _FILE
    return kind


def _byte_level_file(file: Tokenizer) -> bool:
    parts = (file.normalizer, file.pre_tokenizer, file.post_processor, file.decoder)
    return any('"ByteLevel"' in json.dumps(state(part)) for part in parts)


def rebuild(
    file: Tokenizer, name: str | None, folder: Path, settings: Settings, vocab_size: int | None = None
) -> tuple[Tokenizer, TokenizerClass]:
    """What a class makes of a tokenizer.json, and the class.

    Args:
        file: the library's tokenizer of the file, which may be changed.
        name: the class's, as `named` finds it.
        folder: the file's, where others may lie beside it.
        settings: tokenizer_config.json.
        vocab_size: added tokens from this id on are left out.

    Raises:
        CheckpointError: a key of tokenizer_config.json that is of the wrong type, or a token that there is not.
        UnsupportedModelError: a class that does not read tokenizer.json.
    """
    kind = class_of(name, file)
    tokens = special.gather(folder, settings, file.get_added_tokens_decoder(), kind.tokens, kind.extra)
    if kind.body is None:
        made = file if vocab_size is None else _without_embeddings(file, vocab_size)
    else:
        made = Tokenizer(file.model)
        if file.post_processor is not None:
            made.post_processor = file.post_processor
        kind.body(made, file, settings, tokens.content("unk"))
    special.add(made, tokens.added, vocab_size)
    flagged = FLAGGED.get(bare(settings.get("tokenizer_class") or ""))
    if flagged is not None and not settings.keys().isdisjoint(("add_bos_token", "add_eos_token")):
        # transformers 5 neither obeys nor writes these: where one stands, version 4 wrote and obeyed it.
        bos, eos = (tokens.roles.get(role, default) for role, default in zip(("bos", "eos"), flagged, strict=True))
        made.post_processor = _by_flags(
            special.end(bos, made) if optional_flag(settings, "add_bos_token", True) else None,
            special.end(eos, made) if optional_flag(settings, "add_eos_token", False) else None,
        )
    elif kind.ends is not None:
        first, last = (special.end(tokens.content(role), made) for role in kind.roles)
        made.post_processor = kind.ends(first, last)
    made.encode_special_tokens = flag(settings, "split_special_tokens", False)
    return made, kind


def _without_embeddings(file: Tokenizer, vocab_size: int) -> Tokenizer:
    """The tokenizer but for added tokens beyond the embeddings, as Gemma's for images: no text must bring them up."""
    if max(file.get_added_tokens_decoder(), default=0) < vocab_size:
        return file
    state = json.loads(file.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < vocab_size]
    return Tokenizer.from_str(json.dumps(state))


def _by_flags(bos: End | None, eos: End | None) -> processors.PostProcessor:
    """These tokens around each of a pair's texts."""
    first, second = (
        [*([f"{bos[0]}:{kind}"] if bos else []), f"${text}:{kind}", *([f"{eos[0]}:{kind}"] if eos else [])]
        for kind, text in enumerate("AB")
    )
    ends = [end for end in (bos, eos) if end]
    return processors.TemplateProcessing(single=first, pair=first + second, special_tokens=ends)
