"""Sparse models' folders: a masked language model and SpladePooling, and a side that only looks tokens up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_embed.checkpoint.files import present, read_json
from mlx_embed.checkpoint.listed import inside, kind_of, listed
from mlx_embed.errors import CheckpointError, UnsupportedModelError

POOLINGS = ("max", "sum")
# How often log1p is taken of what is above 0.
LOGARITHMS = {"relu": 1, "log1p_relu": 2}
_TABLE = "SparseStaticEmbedding"
_TRANSFORMERS = ("Transformer", "MLMTransformer")


@dataclass(frozen=True)
class Sides:
    """What a sparse model does with texts.

    Attributes:
        transformer: the folder of the masked language model, within the checkpoint.
        pooling: "max" or "sum", over the tokens of a text.
        logarithms: how often log1p is taken of a logit that is above 0.
        looked_up: of tasks, the folder of a table of a weight a token, which takes the place of the model.
        default: the task of texts that are not said to be of one.
    """

    transformer: str = ""
    pooling: str = "max"
    logarithms: int = 1
    looked_up: Mapping[str, str] | None = None
    default: str | None = None

    def table(self, task: str | None) -> str | None:
        """The folder of the table that texts of a task are looked up in; None where the model computes them."""
        return (self.looked_up or {}).get(task or self.default or "")


def read_sides(folder: Path) -> Sides:
    """Read modules.json of a sparse model, and what it points to.

    Raises:
        CheckpointError: a file that is missing or malformed.
        UnsupportedModelError: modules that are not implemented.
    """
    entries = listed(folder)
    if [kind for kind, _ in entries] != ["Router"]:
        return _computed(folder, entries, folder / "modules.json")
    router = inside(folder, entries[0][1])
    path = router / "router_config.json"
    path = path if present(path) else router / "config.json"
    config = read_json(path)
    try:
        types, structure, parameters = (config[key] for key in ("types", "structure", "parameters"))
        routes = {
            str(task): [(kind_of(path, str(types[name])), str(Path(entries[0][1]) / name)) for name in names]
            for task, names in structure.items()
        }
        default = parameters.get("default_route") or next(iter(routes))
        mapped = parameters.get("route_mappings")
    except (TypeError, KeyError, AttributeError, StopIteration) as error:
        raise CheckpointError(f"{path} does not say which modules are for which task ({error!r}).") from error
    if mapped or not {"query", "document"} >= set(routes):
        raise UnsupportedModelError(f'{path} has routes other than "query" and "document", which mlx_embed has.')
    looked_up = {
        task: row[0][1] for task, row in routes.items() if [kind for kind, _ in row] == ["SparseStaticEmbedding"]
    }
    computed = {tuple(row) for task, row in routes.items() if task not in looked_up}
    if len(computed) != 1:
        raise UnsupportedModelError(f"{path} has {len(computed)} masked language models; mlx_embed runs one.")
    sides = _computed(folder, list(*computed), path)
    return Sides(sides.transformer, sides.pooling, sides.logarithms, looked_up, str(default))


def _computed(folder: Path, entries: Sequence[tuple[str, str]], path: Path) -> Sides:
    order = [kind for kind, _ in entries]
    if len(order) != 2 or order[0] not in _TRANSFORMERS or order[1] != "SpladePooling":
        raise UnsupportedModelError(
            f"{path} lists {' -> '.join(order) or 'nothing'}; mlx_embed runs Transformer -> SpladePooling, and a "
            "Router of that and SparseStaticEmbedding."
        )
    config_path = inside(folder, entries[1][1]) / "config.json"
    config = read_json(config_path)
    chosen: list[Any] = []
    for key, known, default in (
        ("pooling_strategy", POOLINGS, "max"),
        ("activation_function", tuple(LOGARITHMS), "relu"),
    ):
        value = config.get(key, default)
        if value not in known:
            raise UnsupportedModelError(f'{config_path} has "{key}": {value!r}; mlx_embed has {" and ".join(known)}.')
        chosen.append(value)
    return Sides(entries[0][1], chosen[0], LOGARITHMS[chosen[1]])
