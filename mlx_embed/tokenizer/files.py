"""A checkpoint's tokenizer of its files: tokenizer.json, vocab.txt, or vocab.json with merges.txt."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from mlx_embed.checkpoint import Checkpoint
from mlx_embed.checkpoint.files import present, read_json
from mlx_embed.errors import CheckpointError, UnsupportedModelError

# Built here where there is no tokenizer.json: transformers' classes, without "Tokenizer" or "TokenizerFast" at the end.
_CLASSES = ("Bert", "DistilBert", "MPNet", "Roberta")
# Where tokenizer_config.json names no class.
_BY_MODEL_TYPE = {"distilbert": "DistilBert", "mpnet": "MPNet", "roberta": "Roberta"}

_BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_ROBERTA = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>", "mask": "<mask>"}


def read(checkpoint: Checkpoint) -> Tokenizer:
    """The checkpoint's tokenizer, which lowercases if the checkpoint asks for it, and neither pads nor cuts.

    Raises:
        CheckpointError: files that are missing, broken, or lack tokens.
        UnsupportedModelError: vocabulary files of another class of tokenizer than those that are built here.
    """
    path = checkpoint.transformer / "tokenizer.json"
    tokenizer = _from_json(path, checkpoint.encoder_config.vocab_size) if present(path) else build(checkpoint)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    _check_unknown(path if present(path) else checkpoint.transformer, tokenizer)
    if checkpoint.do_lower_case:
        _lowercase(tokenizer)
    return tokenizer


def _from_json(path: Path, vocab_size: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
        if max(tokenizer.get_added_tokens_decoder(), default=0) < vocab_size:
            return tokenizer
        # Some added tokens have no embeddings, such as Gemma's for images. No text must be able to bring them up.
        state = json.loads(tokenizer.to_str())
        state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < vocab_size]
        return Tokenizer.from_str(json.dumps(state))
    except BaseException as error:  # the library raises plain Exception
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise CheckpointError(f"{path} is no tokenizer that this version of tokenizers reads: {error}") from error


def is_panic(error: BaseException) -> bool:
    """Whether the library's Rust code gave up, which comes as no Exception."""
    return type(error).__name__ == "PanicException"


def _check_unknown(place: Path, tokenizer: Tokenizer) -> None:
    """CheckpointError where a character that is in no vocabulary has no token; else texts would fail, now and then."""
    try:
        tokenizer.model.tokenize("\U0010fffd")
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise CheckpointError(
            f"{place} has no token for what its vocabulary lacks ({error}); is the vocabulary that of this tokenizer?"
        ) from error


def _lowercase(tokenizer: Tokenizer) -> None:
    own = tokenizer.normalizer
    if own is None:
        tokenizer.normalizer = normalizers.Lowercase()
    elif "lowercase" not in str(own).lower() or "lowercase=False" in str(own):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), own])


def build(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer of vocabulary files, as transformers builds it.

    Raises:
        CheckpointError: files that are missing or broken, or lack a token.
        UnsupportedModelError: a tokenizer of another class.
    """
    folder = checkpoint.transformer
    wordpiece, bpe = folder / "vocab.txt", (folder / "vocab.json", folder / "merges.txt")
    settings = _optional(folder / "tokenizer_config.json")
    kind = _kind(checkpoint, settings)
    if not (all(present(path) for path in bpe) if kind == "Roberta" else present(wordpiece)):
        needed = "vocab.json with merges.txt" if kind == "Roberta" else "vocab.txt"
        raise CheckpointError(f"{folder} has neither tokenizer.json nor {needed}. {_hint(folder)}")
    tokens = _special_tokens(folder, settings, kind)
    try:
        if kind == "Roberta":
            tokenizer = _byte_level(*bpe, settings)
        else:
            tokenizer = _wordpiece(wordpiece, tokens["unk"].content, settings)
    except CheckpointError:
        raise
    except BaseException as error:  # the library raises plain Exception
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise CheckpointError(f"{folder} has a vocabulary that cannot be read: {error}") from error
    absent = [token.content for token in tokens.values() if tokenizer.token_to_id(token.content) is None]
    if absent:
        raise CheckpointError(f"The vocabulary of {folder} lacks {', '.join(sorted(set(absent)))}.")
    tokenizer.add_special_tokens(list(tokens.values()))
    _add_tokens(tokenizer, folder, settings)
    size, needed_size = tokenizer.get_vocab_size(), checkpoint.encoder_config.vocab_size
    if size < needed_size:
        raise CheckpointError(
            f"The vocabulary of {folder} has {size} tokens, but config.json gives the model {needed_size} embeddings: "
            f"lines are missing, or the rest is padding, which only a tokenizer.json can tell. {_hint(folder)}"
        )
    ids = tokenizer.get_vocab()
    sep, cls = ((tokens[role].content, ids[tokens[role].content]) for role in ("sep", "cls"))
    pairs_are_typed = kind in ("Bert", "DistilBert")
    tokenizer.post_processor = (processors.BertProcessing if pairs_are_typed else processors.RobertaProcessing)(
        sep, cls
    )
    return tokenizer


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if present(path) else {}


def _kind(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> str:
    named = settings.get("tokenizer_class") or _BY_MODEL_TYPE.get(str(checkpoint.config.get("model_type")), "Bert")
    kind = str(named).removesuffix("Fast").removesuffix("Tokenizer")
    if kind not in _CLASSES or checkpoint.config.get("model_type") in ("camembert", "xlm-roberta"):
        raise UnsupportedModelError(
            f"{checkpoint.transformer} has no tokenizer.json, and mlx_embed builds {', '.join(_CLASSES)} tokenizers of "
            f"vocabulary files, not {named}. {_hint(checkpoint.transformer)}"
        )
    return kind


def _hint(folder: Path) -> str:
    return (
        f"transformers can make a tokenizer.json: AutoTokenizer.from_pretrained({str(folder)!r})"
        f".save_pretrained({str(folder)!r})."
    )


def _wordpiece(path: Path, unknown: str, settings: Mapping[str, Any]) -> Tokenizer:
    with path.open(encoding="utf-8") as file:
        tokens = [line.rstrip("\n") for line in file]
    ids: dict[str, int] = {}
    for place, token in enumerate(tokens):
        if not token:
            raise CheckpointError(f"{path} has no token in line {place + 1}; download it again.")
        if ids.setdefault(token, place) != place:
            raise CheckpointError(
                f"{path} has {token!r} in line {ids[token] + 1} and in line {place + 1}; download it again."
            )
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _byte_level(vocabulary: Path, merges: Path, settings: Mapping[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(*models.BPE.read_file(str(vocabulary), str(merges))))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings.get("add_prefix_space", False))
    return tokenizer


def _special_tokens(folder: Path, settings: Mapping[str, Any], kind: str) -> dict[str, AddedToken]:
    """By role; as the checkpoint spells them, or by default."""
    listed = _optional(folder / "special_tokens_map.json") | dict(settings)
    defaults = _ROBERTA | ({"unk": "[UNK]"} if kind == "MPNet" else {}) if kind in ("MPNet", "Roberta") else _BERT
    tokens = {}
    for role, default in defaults.items():
        value = listed.get(f"{role}_token") or default
        if isinstance(value, dict):
            tokens[role] = _added_token(value)
        elif isinstance(value, str):
            # In MPNet's tokenizer the space before a mask belongs to it.
            tokens[role] = AddedToken(value, lstrip=role == "mask" and kind == "MPNet", special=True)
        else:
            raise CheckpointError(f'{folder} has "{role}_token": {value!r}, where text is needed.')
    return tokens


def _add_tokens(tokenizer: Tokenizer, folder: Path, settings: Mapping[str, Any]) -> None:
    """What was added to the vocabulary later; each must get the id that the checkpoint gives it."""
    old = {str(i): {"content": text} for text, i in _optional(folder / "added_tokens.json").items()}
    given = settings.get("added_tokens_decoder") or old
    if not isinstance(given, dict) or not all(str(i).isdecimal() for i in given):
        raise CheckpointError(f"{folder} has added tokens that are no object from ids to tokens.")
    for i, value in sorted(given.items(), key=lambda item: int(item[0])):
        token = _added_token(value)
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
        if tokenizer.token_to_id(token.content) != int(i):
            raise CheckpointError(f"{folder} gives the added token {token.content!r} the id {i}, which it cannot have.")


def _added_token(value: Any) -> AddedToken:
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, str) or not content:
        raise CheckpointError(f'tokenizer_config.json has the token {value!r}, where one with "content" is needed.')
    flags = {name: value[name] is True for name in ("lstrip", "rstrip", "single_word", "normalized") if name in value}
    return AddedToken(content, special=value.get("special") is not False and "special" in value, **flags)
