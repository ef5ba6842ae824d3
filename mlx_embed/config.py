"""What a checkpoint folder says of itself: modules.json, pooling, prompts, lengths (sentence-transformers' layout)."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_embed.errors import CheckpointError, UnsupportedModelError
from mlx_embed.pooling import POOLING
from mlx_embed.similarity import SIMILARITY

# sentence-transformers' names of the pooling modes, before and since its version 5, to ours.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_POOLING_NAMES = {"lasttoken": "last"}

# The E5 models were trained with these prefixes, and their repositories carry no prompts.
E5_PROMPTS = {"query": "query: ", "passage": "passage: "}
_E5_NAME = re.compile(r"(?:^|[/-])(?:multilingual-)?e5-(?:small|base|large)(?:-v2|-unsupervised)?(?:/|$)")

# Above this, tokenizer_config.json's model_max_length is a placeholder for "no limit".
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder, read and checked, without its weights.

    Attributes:
        folder: the checkpoint's root.
        transformer: the folder of config.json, tokenizer.json and the weights; often the root itself.
        config: config.json.
        pooling: one of mean, cls, max, last.
        include_prompt: whether a prompt's own tokens are pooled.
        normalize: whether vectors are scaled to length 1.
        max_seq_length: the longest text in tokens that the checkpoint names; None where it names none.
        do_lower_case: whether texts are lowercased before the tokenizer's own normalisation.
        truncation_side: the end at which long texts are cut, "right" or "left".
        prompts: prompt name to text.
        default_prompt_name: the prompt that `encode` applies when it is given none.
        similarity: one of cosine, dot, euclidean, manhattan.
    """

    folder: Path
    transformer: Path
    config: Mapping[str, Any]
    pooling: str = "mean"
    include_prompt: bool = True
    normalize: bool = False
    max_seq_length: int | None = None
    do_lower_case: bool = False
    truncation_side: str = "right"
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"


def read_checkpoint(folder: Path, name: str = "") -> Checkpoint:
    """Read the JSON files of a checkpoint folder.

    A folder without modules.json is a bare transformers checkpoint: mean pooling, vectors not normalised, as in
    sentence-transformers. `name` is what the user asked for; E5 models are known by it, or by the folder.

    Raises:
        CheckpointError: a missing or malformed file.
        UnsupportedModelError: a module or pooling mode that is not implemented.
    """
    modules = _modules(folder)
    transformer = _inside(folder, modules["Transformer"])
    config = read_json(transformer / "config.json")
    pooling, include_prompt = _pooling(_inside(folder, modules["Pooling"])) if "Pooling" in modules else ("mean", True)
    bert = _optional_json(transformer / "sentence_bert_config.json")
    tokenizer = _optional_json(transformer / "tokenizer_config.json")
    sentence = _optional_json(folder / "config_sentence_transformers.json")
    prompts = _prompts(sentence, name or str(folder.resolve()))
    default = sentence.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise CheckpointError(
            f"{folder / 'config_sentence_transformers.json'} names the default prompt {default!r}, "
            f"but has the prompts {sorted(prompts)}."
        )
    similarity = sentence.get("similarity_fn_name") or "cosine"
    if similarity not in SIMILARITY:
        raise UnsupportedModelError(f"similarity_fn_name {similarity!r} is not one of {', '.join(SIMILARITY)}.")
    return Checkpoint(
        folder=folder,
        transformer=transformer,
        config=config,
        pooling=pooling,
        include_prompt=include_prompt,
        normalize="Normalize" in modules,
        max_seq_length=_max_seq_length(bert, tokenizer),
        do_lower_case=bool(bert.get("do_lower_case", False)),
        truncation_side="left" if tokenizer.get("truncation_side") == "left" else "right",
        prompts=prompts,
        default_prompt_name=default,
        similarity=similarity,
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError where it is missing, no JSON, or no object."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; a checkpoint folder needs it.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); download the checkpoint again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, where a JSON object is needed.")
    return value


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _modules(folder: Path) -> dict[str, str]:
    """modules.json as {module kind: its folder}, checked to be Transformer, Pooling and optionally Normalize."""
    path = folder / "modules.json"
    if not path.is_file():
        return {"Transformer": ""}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        kinds = [(str(entry["type"]).rsplit(".", 1)[-1], str(entry["path"])) for entry in entries]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a list of modules with a type and a path ({error!r}).") from error
    order = [kind for kind, _ in kinds]
    if order not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UnsupportedModelError(
            f"{path} lists {' -> '.join(order) or 'nothing'}; mlx_embed runs Transformer -> Pooling [-> Normalize]."
        )
    return dict(kinds)


def _inside(folder: Path, path: str) -> Path:
    # Not resolved: the hub's cache keeps a checkpoint's files as links to elsewhere.
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise CheckpointError(f"{folder / 'modules.json'} points to {path!r}, outside the checkpoint.")
    return folder / path


def _pooling(folder: Path) -> tuple[str, bool]:
    path = folder / "config.json"
    config = read_json(path)
    named = config.get("pooling_mode")
    if named is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    else:
        names = named if isinstance(named, list) else str(named).split("+")
        modes = [_POOLING_NAMES.get(str(name), str(name)) for name in names]
    if len(modes) != 1 or modes[0] not in POOLING:
        raise UnsupportedModelError(f"{path} asks for {'+'.join(modes)} pooling; mlx_embed has {', '.join(POOLING)}.")
    return modes[0], bool(config.get("include_prompt", True))


def _prompts(sentence: Mapping[str, Any], name: str) -> dict[str, str]:
    given = sentence.get("prompts") or {}
    if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
        raise CheckpointError(f'config_sentence_transformers.json has "prompts": {given!r}, not names with texts.')
    if not any(given.values()) and _E5_NAME.search(name.replace("--", "/")):
        return dict(E5_PROMPTS)
    return given


def _max_seq_length(bert: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int | None:
    for config, key in ((bert, "max_seq_length"), (tokenizer, "model_max_length")):
        value = config.get(key)
        if value is None or (isinstance(value, (int, float)) and value > _NO_LIMIT):
            continue
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(f'the checkpoint has "{key}": {value!r}, where a number of tokens is needed.')
        return value
    return None
