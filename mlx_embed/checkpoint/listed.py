"""modules.json: which modules a checkpoint is made of, and where they lie, and what stands beside it."""

import json
from pathlib import Path
from typing import Any

from mlx_embed.checkpoint.files import optional_json, present, read_json
from mlx_embed.checkpoint.tasks import OWN_MODULE, STATED, is_v5
from mlx_embed.errors import CheckpointError, UnsupportedModelError


def listed(folder: Path) -> list[tuple[str, str]]:
    """modules.json as (kind of module, its folder).

    Raises:
        CheckpointError: no such list.
        UnsupportedModelError: a module that is code of the repository's own.
    """
    path = folder / "modules.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        found = [(str(entry["type"]), str(entry["path"])) for entry in entries]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a list of modules with a type and a path ({error!r}).") from error
    return [("Transformer" if _is_jina(folder, name, place) else kind_of(path, name), place) for name, place in found]


def saved_settings(folder: Path) -> dict[str, Any]:
    """config_sentence_transformers.json, which says of a folder with modules.json what it is; of others empty."""
    return optional_json(folder / "config_sentence_transformers.json") if present(folder / "modules.json") else {}


def _is_jina(folder: Path, name: str, place: str) -> bool:
    """Whether a module is Jina's own, v3's or v5's; other models have such names for what does something else."""
    path = inside(folder, place) / "config.json"
    if name != OWN_MODULE or not present(path):
        return False
    config = read_json(path)
    return config.get(STATED) is not None or is_v5(config)


# PyLate's own module, which is sentence-transformers' on tokens.
_PYLATE_DENSE = "pylate.models.Dense.Dense"


def kind_of(path: Path, name: str) -> str:
    """A module's class without its package, which must be sentence-transformers'."""
    if not name.startswith("sentence_transformers.") and name != _PYLATE_DENSE:
        raise UnsupportedModelError(
            f"{path} names {name}: code of the repository's own, which mlx_embed does not run. It has "
            "sentence-transformers' modules Transformer, StaticEmbedding, Pooling, Dense, Dropout, LayerNorm and "
            "Normalize, of sparse models SpladePooling, SparseStaticEmbedding and Router, and of models of a vector a "
            "token MultiVectorMask and HierarchicalTokenPooling."
        )
    return name.rsplit(".", 1)[-1]


def inside(folder: Path, path: str) -> Path:
    """A module's folder; CheckpointError where it is outside the checkpoint, or cannot be looked at."""
    # Not resolved: the hub's cache keeps a checkpoint's files as links to elsewhere.
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise CheckpointError(f"{folder / 'modules.json'} points to {path!r}, outside the checkpoint.")
    place = folder / path
    try:
        place.stat()
    except FileNotFoundError:
        pass  # said where a file of it is needed
    except (OSError, ValueError) as error:  # such as a name that is too long
        why = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{folder / 'modules.json'} points to {path!r:.80}: {why}.") from error
    return place
