"""Adapters in peft's format: a LoRA of linear layers and embeddings, merged into the weights that it was trained on.

    W' = W + scale * B A        with scale = alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA

The tensors of the file say where the adapter is. So the target modules and layers of adapter_config.json, by which peft
chose them, need not be read again, nor `fan_in_fan_out`, which peft sets to false for linear layers.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_embed.arguments import type_name
from mlx_embed.checkpoint import safetensors
from mlx_embed.checkpoint.files import present, read_json
from mlx_embed.checkpoint.safetensors import FLOATS, Tensor
from mlx_embed.errors import CheckpointError, UnsupportedModelError

CONFIG = "adapter_config.json"
FILE = "adapter_model.safetensors"

# Keys of adapter_config.json (peft 0.21) that are read here, or that change nothing once an adapter is trained. Any
# other that is set belongs to a kind of adapter that is not computed here.
_READ = {"peft_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "use_rslora", "rank_pattern"}
_READ |= {"alpha_pattern", "init_lora_weights"}
_HARMLESS = {"task_type", "auto_mapping", "peft_version", "inference_mode", "lora_dropout", "megatron_core"}
_HARMLESS |= {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias"}
_HARMLESS |= {"fan_in_fan_out", "lora_bias", "loftq_config", "eva_config", "corda_config", "lora_ga_config"}
_HARMLESS |= {"runtime_config", "qalora_group_size", "ensure_weight_tying"}
# The ways to begin training that leave the base model's weights as they are; peft repeats the others when it loads.
_BEGINNINGS = (None, True, False, "gaussian", "orthogonal", "eva")

# Of the tensors' names in the file, behind the module's path.
_PART = re.compile(r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B)(?:\.default)?(?:\.(weight|bias))?")
# What peft puts into the path of a module that it has replaced, or keeps a trained copy of.
_REPLACED = re.compile(r"^base_model\.model\.|\.(?:base_layer|modules_to_save\.default)(?=\.)")


@dataclass(frozen=True)
class Rows:
    """A block of rows: of layers that a file has as one, that which an adapter changes.

    Where all rows are `parts` equal blocks, `count` of them from `first` on.
    """

    first: int
    count: int
    parts: int

    def __call__(self, whole: mx.array) -> mx.array:
        """[parts * n, ...] -> [count * n, ...]."""
        rows = whole.shape[0] // self.parts
        return whole[self.first * rows : (self.first + self.count) * rows]


@dataclass(frozen=True)
class LowRank:
    """What a LoRA adds to a weight: scale * B A, computed in float32.

    Attributes:
        a: [rank, in].
        b: [out, rank].
        transposed: the weight is an embedding's, [in, out].
    """

    a: Tensor
    b: Tensor
    scale: float
    transposed: bool

    def __call__(self, weight: mx.array) -> mx.array:
        """[out, in] -> [out, in], float32."""
        factors = safetensors.load_tensors({"a": self.a, "b": self.b})
        added = self.scale * (factors["b"].astype(mx.float32) @ factors["a"].astype(mx.float32))
        return weight.astype(mx.float32) + (added.T if self.transposed else added)


@dataclass(frozen=True)
class Added:
    """What the bias of a LoRA's second matrix adds to a layer's: scale * bias."""

    bias: Tensor
    scale: float

    def __call__(self, bias: mx.array) -> mx.array:
        """[out] -> [out], float32."""
        return bias.astype(mx.float32) + self.scale * safetensors.load_tensors({"": self.bias})[""].astype(mx.float32)


@dataclass(frozen=True)
class Adapter:
    """An adapter_config.json, checked.

    Attributes:
        base: the model that it was trained on, a path or a repository of the hub; None where it does not say.
        revision: that repository's.
        rank: of the matrices; that of a module is in the first pattern that its path ends with, if any does.
        alpha: likewise.
        classifier: whether a sequence classifier was trained, whatever the base model is.
    """

    folder: Path
    base: str | None
    revision: str | None
    rank: int
    alpha: float
    rslora: bool
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    classifier: bool = False

    def scale(self, path: str, a: Tensor) -> float:
        """What a module's product is multiplied by; CheckpointError where its rank is not the one stated."""
        rank = _of_pattern(self.rank_pattern, path, self.rank)
        if a.shape[:1] != (rank,):
            raise CheckpointError(f"{a} has shape {a.shape}, but {self.folder / CONFIG} gives it the rank {rank}.")
        return _of_pattern(self.alpha_pattern, path, self.alpha) / (math.sqrt(rank) if self.rslora else rank)


def read_adapter(folder: Path) -> Adapter | None:
    """The adapter of a checkpoint's folder; None where it has none.

    Raises:
        CheckpointError: an adapter_config.json with a value of the wrong kind.
        UnsupportedModelError: an adapter of a kind that is not merged here; the message names it.
    """
    path = folder / CONFIG
    if not present(path):
        return None
    config = read_json(path)
    if config.get("peft_type") != "LORA":
        raise UnsupportedModelError(
            f'{path} has "peft_type": {config.get("peft_type")!r}; mlx_embed merges LORA alone.'
        )
    other = sorted(key for key, value in config.items() if key not in _READ | _HARMLESS and value)
    if config.get("init_lora_weights") not in _BEGINNINGS:
        other.append("init_lora_weights")
    if other:
        raise UnsupportedModelError(
            f"{path} has {', '.join(f'{key!r}: {config[key]!r:.60}' for key in other)}; mlx_embed does not merge that. "
            "Merge it by peft's merge_and_unload(), and save the model that this gives."
        )
    for key, kind in (("base_model_name_or_path", str), ("revision", str), ("use_rslora", bool)):
        if config.get(key) is not None and not isinstance(config[key], kind):
            raise CheckpointError(f'{path} has "{key}": {config[key]!r}, where {type_name(kind)} is needed.')
    return Adapter(
        folder,
        config.get("base_model_name_or_path"),
        config.get("revision"),
        int(_number(path, "r", config.get("r", 8), whole=True)),
        _number(path, "lora_alpha", config.get("lora_alpha", 8)),
        bool(config.get("use_rslora")),
        {key: int(value) for key, value in _pattern(path, config, "rank_pattern", whole=True).items()},
        _pattern(path, config, "alpha_pattern"),
        config.get("task_type") == "SEQ_CLS",
    )


def plain_name(name: str) -> str:
    """What a tensor that takes another's place in the model is called there: without what peft puts into its name."""
    return _REPLACED.sub("", name)


def merged(
    adapter: Adapter,
    tensors: Mapping[str, Tensor],
    meaning: Callable[[str], str],
    fused: Mapping[str, Mapping[str, int]],
) -> dict[str, Tensor]:
    """The tensors of a checkpoint, those that an adapter changes replaced by what they become when they are read.

    Args:
        adapter: what to merge.
        tensors: by what the architecture calls them.
        meaning: gives that name of any tensor's, whatever prefix a file has it under.
        fused: layers that a file may have as one, the names of their parts, and how much of the whole each is.

    Raises:
        CheckpointError: a file that is missing or broken, or a tensor of the adapter that fits none of the model's.
        UnsupportedModelError: a tensor that is of no LoRA, or one for weights that are quantized.
    """
    path = adapter.folder / FILE
    if not present(path):
        raise CheckpointError(f"{adapter.folder} has {CONFIG} and no {FILE}; save the adapter as safetensors.")
    result = dict(tensors)
    halves: dict[str, dict[str, Tensor]] = {}
    for tensor in safetensors.read_file(path):
        name = tensor.name.removeprefix("base_model.model.")
        if tensor.dtype not in FLOATS:
            raise CheckpointError(f"{tensor} has dtype {tensor.dtype}, where an adapter's is F32, F16 or BF16.")
        if match := _PART.fullmatch(name):
            module, part, kind = match.groups()
            halves.setdefault(module, {})[f"{part}.{kind}" if kind == "bias" else part] = tensor
        elif "lora_" in name or "trainable_tokens" in name or "token_adapter" in name:
            raise UnsupportedModelError(f"{tensor} is of a kind of adapter that mlx_embed does not merge.")
        else:
            _part_of(result, meaning(name), fused)
            result[meaning(name)] = tensor
    for module, found in halves.items():
        _part_of(result, meaning(f"{module}.weight"), fused)
        _part_of(result, meaning(f"{module}.bias"), fused)
        _add(adapter, result, module, found, meaning)
    return result


def require_as_in_base(adapter: Adapter | None, *tied: Tensor | None) -> None:
    """Of a model that has one matrix for its embeddings and its output: whether an adapter leaves that as it is.

    Peft changes one of the two and not the other, until it merges them.

    Raises:
        UnsupportedModelError: it does not.
    """
    if adapter is None:
        return
    file = adapter.folder / FILE
    for tensor in tied:
        if tensor is not None and (tensor.file == file or any(isinstance(one, LowRank) for one in tensor.changes)):
            raise UnsupportedModelError(
                f"{file} changes {tensor.name!r}, and config.json has one matrix for the embeddings and the output "
                '("tie_word_embeddings"): mlx_embed does not merge that for a model whose output is needed. Train it '
                "with tie_word_embeddings false, or merge it by peft's merge_and_unload()."
            )


def _part_of(result: dict[str, Tensor], name: str, fused: Mapping[str, Mapping[str, int]]) -> None:
    """Where the file has a layer as part of a larger one, put all the parts in that one's place."""
    prefix, last, kind = (["", *name.rsplit(".", 2)])[-3:]
    for whole, parts in fused.items():
        tensor = result.get(f"{prefix}.{whole}.{kind}")
        if name in result or last not in parts or tensor is None or tensor.dtype not in FLOATS:
            continue
        del result[f"{prefix}.{whole}.{kind}"]
        first, every = 0, sum(parts.values())
        for part, share in parts.items():
            rows = Rows(first, share, every)
            first += share
            shape = (tensor.shape[0] * share // every, *tensor.shape[1:])
            result[f"{prefix}.{part}.{kind}"] = replace(tensor, shape=shape, changes=(*tensor.changes, rows))


def _add(
    adapter: Adapter, result: dict[str, Tensor], module: str, found: Mapping[str, Tensor], meaning: Callable[[str], str]
) -> None:
    """Put what a LoRA adds to one module with the module's tensors."""
    kind = "lora_embedding_" if "lora_embedding_A" in found or "lora_embedding_B" in found else "lora_"
    a, b = found.get(f"{kind}A"), found.get(f"{kind}B")
    known = {f"{kind}A", f"{kind}B", "lora_B.bias"}
    if a is None or b is None or not found.keys() <= known:
        names = ", ".join(str(tensor) for tensor in found.values())
        raise CheckpointError(f"Of the adapter of {module} there is only {names}; save it again.")
    name = meaning(f"{module}.weight")
    weight = result.get(name)
    if weight is None:
        raise CheckpointError(f"{a} changes {module}.weight, which the base model does not have; is it the right one?")
    if weight.dtype not in FLOATS:
        raise UnsupportedModelError(f"{a} changes {weight}, which is quantized: merge it into the original weights.")
    scale, transposed = adapter.scale(module, a), kind == "lora_embedding_"
    shape = (b.shape[0], a.shape[1]) if len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[1] else None
    if shape is None or (shape[::-1] if transposed else shape) != weight.shape:
        raise CheckpointError(f"{a} has shape {a.shape} and {b.name} {b.shape}, which do not fit {weight.shape}.")
    result[name] = replace(weight, changes=(*weight.changes, LowRank(a, b, scale, transposed)))
    if extra := found.get("lora_B.bias"):
        bias = result.get(meaning(f"{module}.bias"))
        if bias is None:
            raise UnsupportedModelError(
                f"{extra} is a bias of {module}, which has none in the base model that it could be added to; peft does "
                "not merge that either. Train the adapter without lora_bias."
            )
        if extra.shape != bias.shape:
            raise CheckpointError(f"{extra} has shape {extra.shape}, which does not fit {bias.shape}.")
        result[meaning(f"{module}.bias")] = replace(bias, changes=(*bias.changes, Added(extra, scale)))


def _of_pattern(pattern: Mapping[str, Any], path: str, default: Any) -> Any:
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", path)), default)


def _pattern(path: Path, config: Mapping[str, Any], key: str, *, whole: bool = False) -> dict[str, float]:
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CheckpointError(f'{path} has "{key}": {value!r}, where an object is needed.')
    for expression in value:
        try:
            re.compile(expression)
        except re.error as error:
            raise CheckpointError(f'{path} has {expression!r} in "{key}", which is no expression: {error}.') from error
    return {name: _number(path, key, number, whole=whole) for name, number in value.items()}


def _number(path: Path, key: str, value: Any, *, whole: bool = False) -> float:
    if type(value) is int or (type(value) is float and not whole):
        number: float = value
        if 0 < number < 1e6:
            return number
    raise CheckpointError(f'{path} has "{key}": {value!r}, where a {"whole " if whole else ""}number is needed.')
