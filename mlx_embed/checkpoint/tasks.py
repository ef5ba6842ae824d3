"""A LoRA for each task beside a model's weights, of which one is merged when they are read: Jina's v3 and v5.

Of v3 transformers' folder has each in a folder of peft's format, named by the task, as "retrieval_query". The authors'
has those of all tasks in one tensor, and their names, as "retrieval.query", in config.json's lora_adaptations. Either
spelling is understood of both. v5 has folders of peft's in `adapters`, and their names in config.json's task_names; its
authors' code computes nothing without one of them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_embed.checkpoint.adapters import CONFIG, LowRank
from mlx_embed.checkpoint.files import present
from mlx_embed.checkpoint.safetensors import FLOATS, Tensor
from mlx_embed.errors import CheckpointError, UnsupportedModelError

STATED = "lora_adaptations"
V5, V5_STATED = "jina_embeddings_v5", "task_names"
# What the tasks of queries and documents are called: v3's, and so in Jina's API. v5 has one for both.
PURPOSES = {"query": "retrieval.query", "document": "retrieval.passage"}
RETRIEVAL = "retrieval"
# The authors' class in modules.json, which is a Transformer that is told a text's task.
OWN_MODULE = "custom_st.Transformer"
_PART = re.compile(r"(.+)\.parametrizations\.weight\.(original|0\.lora_A|0\.lora_B)")


def task_names(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The tasks that a checkpoint's folder has a LoRA for; () where it has none.

    Raises:
        CheckpointError: names that are none.
    """
    key = V5_STATED if is_v5(config) else STATED
    stated = config.get(key)
    if stated is not None:
        if not isinstance(stated, list) or not stated or not all(isinstance(name, str) for name in stated):
            raise CheckpointError(f'config.json has "{key}": {stated!r}, where a list of names is needed.')
        if key == V5_STATED and not all(name and Path(name).name == name for name in stated):
            raise CheckpointError(f'config.json has "{key}": {stated!r}, which are no names of folders.')
        return tuple(stated)
    if config.get("model_type") != "jina_embeddings_v3":
        return ()
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and present(path / CONFIG)))


def is_v5(config: Mapping[str, Any]) -> bool:
    """Whether a model is jina-embeddings-v5, whose authors' class pools and normalises by itself."""
    return config.get("model_type") == V5


def place_of(folder: Path, config: Mapping[str, Any], task: str) -> Path | None:
    """The folder of a task's LoRA in a checkpoint's folder; None where tasks have none of their own."""
    if config.get(STATED) is not None:
        return None
    return folder / "adapters" / task if is_v5(config) else folder / task


def known(tasks: Sequence[str], name: str) -> str | None:
    """The one of the tasks that is meant by a name; None where none is."""
    return next((task for task in tasks if _spelled(task) == _spelled(name)), None)


def for_purpose(tasks: Sequence[str], purpose: str | None) -> str | None:
    """The one of the tasks that is for queries or documents; None where none is, or texts are neither."""
    return None if purpose is None else known(tasks, PURPOSES[purpose]) or known(tasks, RETRIEVAL)


def checked_task(tasks: Sequence[str], name: Any) -> str:
    """The one of the tasks that is meant by a name.

    Raises:
        ValueError: none is.
    """
    if isinstance(name, str) and (task := known(tasks, name)) is not None:
        return task
    if not tasks:
        raise ValueError(f"task {name!r}: this model has no tasks; leave the option out.")
    raise ValueError(f"task {name!r} is not one of the model's: {', '.join(tasks)}.")


def _spelled(name: str) -> str:
    return re.sub(r"[.\-]", "_", name)


@dataclass(frozen=True)
class _One:
    """Of a tensor that has a matrix for each task, that of one."""

    index: int

    def __call__(self, stacked: mx.array) -> mx.array:
        """[tasks, ...] -> [...]."""
        return stacked[self.index]


def of_task(
    tensors: Iterable[Tensor], config: Mapping[str, Any], tasks: Sequence[str], task: str | None
) -> list[Tensor]:
    """A checkpoint's tensors without those of the authors' LoRAs, of which that of `task` changes the weights.

    Raises:
        CheckpointError: tensors that are missing or do not fit, or a scale that is no number.
        UnsupportedModelError: weights that are quantized.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    found = []
    for tensor in tensors:
        match = _PART.fullmatch(tensor.name)
        if match is None or match[2] == "original":
            found.append(tensor)
        else:
            parts.setdefault(match[1], {})[match[2][2:]] = tensor
    if task is None or not parts:
        return found
    alpha, index = config.get("lora_alpha", 1), tasks.index(task)
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < 1e6:
        raise CheckpointError(f'config.json has "lora_alpha": {alpha!r}, where a number is needed.')
    places = {_plain(tensor.name): place for place, tensor in enumerate(found)}
    for module, pair in parts.items():
        place = places.get(f"{module}.weight")
        if place is None or len(pair) < 2:
            raise CheckpointError(f"{next(iter(pair.values()))} is of a LoRA that lacks its weight or its other half.")
        found[place] = _changed(found[place], pair["lora_A"], pair["lora_B"], float(alpha), index, len(tasks))
    return found


def lora_tensors(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Those of the authors' LoRAs."""
    return [tensor for tensor in tensors if (match := _PART.fullmatch(tensor.name)) and match[2] != "original"]


def _plain(name: str) -> str:
    match = _PART.fullmatch(name)
    return name if match is None else f"{match[1]}.weight"


def _changed(weight: Tensor, a: Tensor, b: Tensor, alpha: float, index: int, count: int) -> Tensor:
    """A weight and what one task adds to it. Of an embedding [V, H], lora_A is [V, rank], and lora_B [rank, H]."""
    if weight.dtype not in FLOATS:
        raise UnsupportedModelError(f"{a} changes {weight}, which is quantized: convert with a task, which is merged.")
    first, second = (b, a) if "embeddings." not in weight.name else (a, b)
    shapes = first.shape, second.shape
    rank = second.shape[1] if len(second.shape) == 3 else 0
    if not rank or shapes != ((count, weight.shape[0], rank), (count, rank, *weight.shape[1:])):
        raise CheckpointError(f"{a} has shape {a.shape} and {b.name} {b.shape}, which do not fit {weight.shape}.")
    one, other = (replace(x, shape=x.shape[1:], changes=(*x.changes, _One(index))) for x in (first, second))
    return replace(weight, changes=(*weight.changes, LowRank(other, one, alpha / rank, transposed=False)))
