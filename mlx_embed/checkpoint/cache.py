"""What the hub's cache lacks of a model, and whether it matters.

huggingface_hub keeps a listing of a repository's files beside those that it has downloaded. Where the hub cannot be
reached and one of the files asked for is not there, it refuses the whole, whatever the file: all-MiniLM-L6-v2 has a
data_config.json that no model needs. Here a cache is enough where all that is read is there.
"""

import json
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

# Read wherever the encoder or one of the modules lies.
_READ = (
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "artifact.metadata",
    "router_config.json",
)
# Read only where there is no tokenizer.json.
_VOCABULARY = ("vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")
# Read where modules.json has a LogitScore, or is not there: a reranker may be asked by it.
_TEMPLATE, _ASKED = "chat_template.jinja", "LogitScore"
_WEIGHTS, _INDEX, _SHARDS = "model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"


def needed(listed: Iterable[str], snapshot: Path) -> list[str]:
    """Of a repository's files, those that loading the model reads and that are missing from its folder in the cache.

    A link to nothing is missing. Without modules.json it is not known which other folders matter.
    """
    missing = sorted(name for name in listed if not (snapshot / name).is_file())
    folders = _folders(snapshot)
    return [name for name in missing if str(PurePosixPath(name).parent) in folders and _is_read(name, snapshot)]


def _is_read(name: str, snapshot: Path) -> bool:
    path = PurePosixPath(name)
    beside = snapshot / path.parent
    if path.name in _VOCABULARY:
        return not (beside / "tokenizer.json").is_file()
    if path.name == _WEIGHTS:
        return not (beside / _INDEX).is_file()
    if path.name == _INDEX or fnmatch(path.name, _SHARDS):
        return not (beside / _WEIGHTS).is_file()
    if path.name == _TEMPLATE:
        modules = snapshot / "modules.json"
        return not modules.is_file() or _ASKED in modules.read_text(encoding="utf-8", errors="replace")
    return any(fnmatch(path.name, pattern) for pattern in _READ)


def _folders(snapshot: Path) -> set[str]:
    """The folders that modules.json names, and the snapshot itself; a malformed file is for its reader to refuse."""
    folders = {"."}
    try:
        listed = json.loads((snapshot / "modules.json").read_text(encoding="utf-8"))
        folders |= {str(PurePosixPath(module["path"])) for module in listed}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return folders
