"""Tokenizers of checkpoints that have no tokenizer.json: from vocab.txt, or from vocab.json and merges.txt."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from mlx_embed.config import Checkpoint, read_json
from mlx_embed.errors import CheckpointError, UnsupportedModelError

# The tokenizers of transformers that are built here, without their "Tokenizer" or "TokenizerFast"; by model_type where
# tokenizer_config.json names none.
_CLASSES = ("Bert", "DistilBert", "MPNet", "Roberta")
_BY_MODEL_TYPE = {"distilbert": "DistilBert", "mpnet": "MPNet", "roberta": "Roberta"}

_BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_ROBERTA = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>", "mask": "<mask>"}


def build(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer that transformers builds of the same files.

    Raises:
        CheckpointError: files that are missing or broken, or lack a special token.
        UnsupportedModelError: a tokenizer of another class.
    """
    folder = checkpoint.transformer
    wordpiece, bpe = folder / "vocab.txt", (folder / "vocab.json", folder / "merges.txt")
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    kind = _kind(checkpoint, settings)
    if not (all(path.is_file() for path in bpe) if kind == "Roberta" else wordpiece.is_file()):
        needed = "vocab.json with merges.txt" if kind == "Roberta" else "vocab.txt"
        raise CheckpointError(f"{folder} has neither tokenizer.json nor {needed}. {_hint(folder)}")
    tokens = _special_tokens(folder, settings, kind)
    try:
        if kind == "Roberta":
            tokenizer = _byte_level(*bpe, settings)
        else:
            tokenizer = _wordpiece(wordpiece, tokens["unk"].content, settings)
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(f"{folder} has a vocabulary that cannot be read: {error}") from error
    absent = [token.content for token in tokens.values() if tokenizer.token_to_id(token.content) is None]
    if absent:
        raise CheckpointError(f"The vocabulary of {folder} lacks {', '.join(sorted(set(absent)))}.")
    tokenizer.add_special_tokens(list(tokens.values()))
    _add_tokens(tokenizer, folder, settings)
    ids = tokenizer.get_vocab()
    sep, cls = ((tokens[role].content, ids[tokens[role].content]) for role in ("sep", "cls"))
    pairs_are_typed = kind in ("Bert", "DistilBert")
    tokenizer.post_processor = (processors.BertProcessing if pairs_are_typed else processors.RobertaProcessing)(
        sep, cls
    )
    return tokenizer


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
        ids = {line.rstrip("\n"): place for place, line in enumerate(file)}
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
    path = folder / "special_tokens_map.json"
    listed = (read_json(path) if path.is_file() else {}) | dict(settings)
    defaults = _ROBERTA | ({"unk": "[UNK]"} if kind == "MPNet" else {}) if kind in ("MPNet", "Roberta") else _BERT
    tokens = {}
    for role, default in defaults.items():
        value = listed.get(f"{role}_token") or default
        if isinstance(value, dict):
            tokens[role] = _added_token(value)
        elif isinstance(value, str):
            # MPNet's mask takes the space before it along.
            tokens[role] = AddedToken(value, lstrip=role == "mask" and kind == "MPNet", special=True)
        else:
            raise CheckpointError(f'{folder} has "{role}_token": {value!r}, where text is needed.')
    return tokens


def _add_tokens(tokenizer: Tokenizer, folder: Path, settings: Mapping[str, Any]) -> None:
    """What was added to the vocabulary later; each must get the id that the checkpoint gives it."""
    path = folder / "added_tokens.json"
    old = {} if not path.is_file() else {str(i): {"content": text} for text, i in read_json(path).items()}
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
