"""sentence_bert_config.json: what sentence-transformers' Transformer module says of texts, lengths and other files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_embed.checkpoint.files import present, read_json
from mlx_embed.errors import CheckpointError, UnsupportedModelError, warn

# The file's names: today's, and those of sentence-transformers 0.x.
_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

# Of each kind of model: what the Transformer module is asked for, and what it gives on.
_TASKS: dict[str, tuple[str, dict[str, Any], str]] = {
    kind: (task, {"text": {"method": "forward", "method_output_name": output}}, name)
    for kind, task, output, name in (
        ("SentenceTransformer", "feature-extraction", "last_hidden_state", "token_embeddings"),
        ("CrossEncoder", "sequence-classification", "logits", "scores"),
        ("SparseEncoder", "fill-mask", "logits", "token_embeddings"),
        ("LogitScore", "text-generation", "logits", "causal_logits"),
        ("MultiVectorEncoder", "feature-extraction", "last_hidden_state", "token_embeddings"),
    )
}
# What a reranker may take besides texts.
_MESSAGE = "message"

# What else models may take.
_OTHERS = ("audio", "image", "video")

# Today's names of keys, by those before; where both are there, the old one counts.
_RENAMED = {"tokenizer_args": "processor_kwargs", "config_args": "config_kwargs", "model_args": "model_kwargs"}

# Above this, a number of tokens is a placeholder for "no limit".
_NO_LIMIT = 10**9

_KNOWN = {
    *("max_seq_length", "query_length", "document_length", "do_lower_case", "processing_kwargs", "query_expansion"),
    *("processor_kwargs", "config_kwargs", "model_kwargs", "transformer_task", "modality_config"),
    *("module_output_name", "unpad_inputs", "backend"),
}
# Below these, keys that change no vector here.
_IDLE_FOR_MODEL = {
    *("attn_implementation", "dtype", "torch_dtype", "device_map", "low_cpu_mem_usage", "use_safetensors"),
    *("revision", "cache_dir", "token", "local_files_only", "subfolder", "provider", "file_name", "export"),
    "trust_remote_code",
}
_FOR_TEXT = {"max_length", "truncation", "add_special_tokens"}
_IDLE_FOR_TEXT = {
    *("padding", "padding_side", "pad_to_multiple_of", "return_tensors", "verbose", "truncation_side"),
    *("return_attention_mask", "return_token_type_ids", "return_length", "return_special_tokens_mask"),
}
_IDLE_PROCESSORS = {"audio", "image", "video", "chat_template"}
# Where to find files, and which class to take, is not for a settings file to say.
_NOT_OF_THE_TOKENIZER = {
    *("tokenizer_class", "tokenizer_type", "use_fast", "trust_remote_code"),
    *("revision", "cache_dir", "token", "local_files_only", "subfolder"),
}


@dataclass(frozen=True)
class Settings:
    """What sentence_bert_config.json says.

    Attributes:
        max_length: tokens at which texts are cut, whatever tokenizer_config says; None where it names no number.
        task_lengths: the same for "query" and "document", where they have numbers of their own.
        truncation: whether texts are cut at any of these numbers at all.
        special_tokens: whether texts get special tokens.
        do_lower_case: whether texts are lowercased before the tokenizer's own normalisation.
        tokenizer_config: keys that count instead of tokenizer_config.json's.
        config: keys that count instead of config.json's.
        modalities: modality_config, where there is one.
        chat: what a chat template is given.
        expansion: the file that has a "query_expansion", and what it says.
    """

    max_length: int | None = None
    task_lengths: Mapping[str, int] = field(default_factory=dict)
    truncation: bool = True
    special_tokens: bool = True
    do_lower_case: bool = False
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    modalities: Mapping[str, Any] | None = None
    chat: Mapping[str, Any] = field(default_factory=dict)
    expansion: tuple[Path, Any] | None = None


def read_settings(transformer: Path, kind: str) -> Settings:
    """The settings of a Transformer module's folder in a model of this kind, a key of _TASKS; "LogitScore" is a
    CrossEncoder that generates.

    A key that is not known is named in a warning: it may change vectors.

    Raises:
        CheckpointError: a value of the wrong type.
        UnsupportedModelError: a way to use the encoder that is not implemented.
    """
    paths = [transformer / name for name in _FILES]
    path, given = next(
        ((path, found) for path in paths if present(path) and (found := read_json(path))), (paths[0], {})
    )
    for old, new in _RENAMED.items():
        if old in given:
            given[new] = given.pop(old)
    task, modalities, output = _TASKS[kind]
    stated = given.get("modality_config")
    if isinstance(stated, dict) and stated.get("text") == modalities["text"]:
        # A text is computed in the same way beside these, where the model takes more than texts.
        given["modality_config"] = {key: value for key, value in stated.items() if key not in _OTHERS}
    if kind in ("CrossEncoder", "LogitScore") and isinstance(stated, dict) and isinstance(stated.get(_MESSAGE), dict):
        form = {key: value for key, value in stated[_MESSAGE].items() if key != "format"}
        given["modality_config"] = {key: value for key, value in stated.items() if key != _MESSAGE} or modalities
        if form != modalities["text"]:
            raise UnsupportedModelError(f"{path} has messages of {form!r}; mlx_embed has {modalities['text']!r}.")
    for key, known in (("transformer_task", task), ("modality_config", modalities), ("module_output_name", output)):
        if given.get(key) not in (None, known):
            raise UnsupportedModelError(f'{path} has "{key}": {given[key]!r}; mlx_embed has {known!r} for a {kind}.')
    expansion = given.get("query_expansion")
    if expansion is not None and kind != "MultiVectorEncoder":
        raise UnsupportedModelError(f'{path} has "query_expansion", which is for models of a vector a token.')
    processing, model = (_object(path, given, key) for key in ("processing_kwargs", "model_kwargs"))
    # Of two settings of a text, sentence-transformers takes the common one.
    text = _object(path, processing, "text") | _object(path, processing, "common")
    unknown = [
        *(key for key in given if key not in _KNOWN),
        *(f"processing_kwargs.{key}" for key in processing if key not in {"text", "common"} | _IDLE_PROCESSORS),
        *(f"processing_kwargs.text.{key}" for key in text if key not in _FOR_TEXT | _IDLE_FOR_TEXT),
        *(f"model_kwargs.{key}" for key in model if key not in _IDLE_FOR_MODEL),
    ]
    if unknown:
        warn(f"{path} has {', '.join(unknown)}, which mlx_embed does not know: vectors may differ from those meant.")
    own = length(path, given, "max_seq_length")
    asked = length(path, text, "max_length")
    lengths = {name: length(path, given, f"{name}_length") for name in ("query", "document")}
    tokenizer = _object(path, given, "processor_kwargs")
    return Settings(
        max_length=asked,
        task_lengths={name: number for name, number in lengths.items() if number is not None and asked is None},
        truncation=_truncation(path, text),
        special_tokens=flag(path, text, "add_special_tokens", True),
        do_lower_case=flag(path, given, "do_lower_case", False),
        tokenizer_config=({} if own is None else {"model_max_length": own})
        | {key: value for key, value in tokenizer.items() if key not in _NOT_OF_THE_TOKENIZER},
        config=_object(path, given, "config_kwargs"),
        modalities=stated,
        chat=_object(path, processing, "chat_template"),
        expansion=None if expansion is None else (path, expansion),
    )


def _truncation(path: Path, text: Mapping[str, Any]) -> bool:
    value = text.get("truncation", True)
    if value in (True, "longest_first"):
        return True
    if value in (False, "do_not_truncate"):
        return False
    raise UnsupportedModelError(f'{path} has "truncation": {value!r}; mlx_embed has true, false and "longest_first".')


def _object(path: Path, settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = settings.get(key)
    if value is not None and not isinstance(value, dict):
        raise CheckpointError(f'{path} has "{key}": {value!r}, where an object is needed.')
    return value or {}


def flag(path: Path, settings: Mapping[str, Any], key: str, default: bool) -> bool:
    """A key that is true or false, or absent."""
    value = settings.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CheckpointError(f'{path} has "{key}": {value!r}, where true or false is needed.')
    return value


def length(path: Path, settings: Mapping[str, Any], key: str) -> int | None:
    """A number of tokens; None where there is none, or one so large that it stands for none."""
    value = settings.get(key)
    if value is None or (isinstance(value, (int, float)) and value > _NO_LIMIT):
        return None
    if type(value) is not int or value < 1:
        raise CheckpointError(f'{path} has "{key}": {value!r}, where a number of tokens is needed.')
    return value
