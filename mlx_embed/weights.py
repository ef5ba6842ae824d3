"""Safetensors to an encoder's parameters and back: checked by their headers before a byte of data is read."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_embed.architectures import architecture
from mlx_embed.architectures.norm import LayerNormKind
from mlx_embed.config import Checkpoint, read_json
from mlx_embed.errors import CheckpointError, UnsupportedModelError
from mlx_embed.modules import Dense, LayerNorm, Module, Normalize

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# What MLX's own tools write into the metadata of their files.
MLX_FORMAT = {"format": "mlx"}

_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "I64": 8, "U8": 1, "I8": 1, "BOOL": 1}
_FLOATS = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}
# Linear layers that run as one, joined in this order.
_FUSED = {"qkv": ("q", "k", "v"), "up_gate": ("up", "gate")}


@dataclass(frozen=True)
class Tensor:
    """One tensor as a safetensors header describes it."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"tensor {self.name!r} of {self.file}"


def load_encoder(checkpoint: Checkpoint, dtype: mx.Dtype | None, layer_norm: LayerNormKind = "fast") -> nn.Module:
    """Build the encoder that config.json describes and fill it with the checkpoint's weights, evaluated.

    `dtype` is that of all floating parameters; None keeps the checkpoint's.

    Raises:
        CheckpointError: a file that is missing, truncated or no safetensors; a tensor that is missing, unexpected,
            of another shape, or of a dtype that weights cannot have. The message names file and tensor.
        UnsupportedModelError: a model_type, activation or position embedding that is not implemented.
    """
    module = architecture(checkpoint.config)
    config = module.Config.from_dict(checkpoint.config)
    tensors = read_headers(checkpoint.transformer)
    # This package's own names come through as they are.
    sources = _fuse(_rename(tensors, module))
    # Before the encoder is built: a config.json with absurd sizes must fail here, on the shapes.
    _check_sizes(config, sources)
    encoder: nn.Module = module.Model(config, layer_norm)
    quantization = checkpoint.config.get("quantization")
    if quantization is not None:
        quantize(encoder, *_quantization(quantization))
    expected = dict(tree_flatten(encoder.parameters()))
    # Architectures know several layouts' names: what is missing is named in this checkpoint's.
    spoken = [pair for pair in module.RENAMES if any(pair[0] in tensor.name for tensor in tensors)]
    _check(checkpoint.transformer, sources, expected, spoken)
    loaded = {path: _load(path) for path in {tensor.file for tensor in tensors}}
    parameters = []
    for name, parts in sources.items():
        arrays = [loaded[part.file][part.name] for part in parts]
        array = arrays[0] if len(arrays) == 1 else mx.concatenate(arrays)
        if dtype is not None and mx.issubdtype(array.dtype, mx.floating):
            array = array.astype(dtype)
        parameters.append((name, array))
    encoder.load_weights(parameters, strict=True)
    encoder.eval()
    mx.eval(encoder.parameters())
    return encoder


def load_modules(checkpoint: Checkpoint) -> list[dict[str, mx.array]]:
    """The weights of each of the checkpoint's modules, float32, evaluated; none for one that has no weights.

    Raises:
        CheckpointError: a file that is missing or broken; a tensor that is missing, unexpected or of another shape.
    """
    return [_load_module(module) for module in checkpoint.modules]


def _load_module(module: Module) -> dict[str, mx.array]:
    if isinstance(module, Normalize):
        return {}
    tensors = {tensor.name: tensor for tensor in read_headers(module.folder)}
    if tensors.keys() != module.shapes.keys():
        raise CheckpointError(
            f"{module.folder} has the tensors {', '.join(sorted(tensors)) or 'none'}, where its config.json means "
            f"{', '.join(sorted(module.shapes))}."
        )
    return _read_parameters(tensors, module.shapes)


def _read_parameters(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, mx.array]:
    for name, shape in shapes.items():
        if tensors[name].shape != shape or tensors[name].dtype not in _FLOATS:
            raise CheckpointError(
                f"{tensors[name]} is {tensors[name].dtype} {tensors[name].shape}, where its config.json means "
                f"floats {shape}."
            )
    loaded = {path: _load(path) for path in {tensor.file for tensor in tensors.values()}}
    parameters = {name: loaded[tensor.file][tensor.name].astype(mx.float32) for name, tensor in tensors.items()}
    mx.eval(parameters)
    return parameters


def load_head(checkpoint: Checkpoint) -> list[tuple[Module, dict[str, mx.array]]]:
    """The layers of a sequence classifier's head and their weights, float32, evaluated; the last gives the labels.

    Raises:
        CheckpointError: a layer that is missing, or whose shape does not fit the one before.
        UnsupportedModelError: an architecture or activation that has no head here.
    """
    module = architecture(checkpoint.config)
    if not hasattr(module, "HEAD"):
        raise UnsupportedModelError(f"Rerankers of model_type {checkpoint.config['model_type']!r} are not supported.")
    folder = checkpoint.transformer
    tensors = _head_tensors(checkpoint)
    head: list[tuple[Module, dict[str, mx.array]]] = []
    dimension = module.Config.from_dict(checkpoint.config).hidden_size
    if checkpoint.config.get("classifier_activation", "gelu") != "gelu":
        raise UnsupportedModelError(
            f'config.json has "classifier_activation": {checkpoint.config["classifier_activation"]!r}; '
            'mlx_embed has "gelu".'
        )
    for layer, activation in module.HEAD:
        weight, bias = (tensors.get(f"{layer}.{part}") for part in ("weight", "bias"))
        if weight is None:
            raise CheckpointError(f"{folder} has no tensor {layer}.weight; is it a reranker (sequence classifier)?")
        kind: Module
        if activation == "LayerNorm":
            kind = LayerNorm(folder, dimension, bias=bias is not None, eps=checkpoint.config.get("norm_eps", 1e-5))
        else:
            kind = Dense(folder, dimension, weight.shape[0] if weight.shape else 0, activation, bias=bias is not None)
            dimension = kind.out_features
        parts = {"weight": weight} | ({} if bias is None else {"bias": bias})
        named = {name: parts[name.rpartition(".")[2]] for name in kind.shapes}
        head.append((kind, _read_parameters(named, kind.shapes)))
    return head


def has_head(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint is a sequence classifier, by its tensors."""
    head, tensors = getattr(architecture(checkpoint.config), "HEAD", ()), _head_tensors(checkpoint)
    return bool(head) and all(f"{layer}.weight" in tensors for layer, _ in head)


def head_arrays(checkpoint: Checkpoint, dtype: mx.Dtype | None) -> dict[str, mx.array]:
    """The tensors of a sequence classifier's head, to be saved as `dtype`, or as they are; none where there is none."""
    if not has_head(checkpoint):
        return {}
    tensors = _head_tensors(checkpoint)
    loaded = {path: _load(path) for path in {tensor.file for tensor in tensors.values()}}
    arrays = {name: loaded[tensor.file][tensor.name] for name, tensor in tensors.items()}
    return arrays if dtype is None else {name: array.astype(dtype) for name, array in arrays.items()}


def _head_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    module = architecture(checkpoint.config)
    layers = tuple(f"{layer}." for layer, _ in getattr(module, "HEAD", ()))
    named = ((_stripped(tensor.name, module), tensor) for tensor in read_headers(checkpoint.transformer))
    return {name: tensor for name, tensor in named if name.startswith(layers)}


def quantize(encoder: nn.Module, bits: int, group_size: int) -> None:
    """Quantize the encoder's linear layers and word embeddings in place, wherever group_size divides their rows."""

    def wanted(path: str, module: nn.Module) -> bool:
        if path.endswith(("word_embeddings", "embed_tokens")) or isinstance(module, nn.Linear):
            return bool(module.weight.shape[-1] % group_size == 0)
        return False

    nn.quantize(encoder, group_size=group_size, bits=bits, class_predicate=wanted)


def save_encoder(encoder: nn.Module, folder: Path, head: Mapping[str, mx.array] = MappingProxyType({})) -> None:
    """Write the encoder's parameters, under this package's names, and a head's, as `folder`/model.safetensors."""
    tensors = dict(tree_flatten(encoder.parameters())) | dict(head)
    mx.save_safetensors(str(folder / FILE), tensors, metadata=MLX_FORMAT)


def read_headers(folder: Path) -> list[Tensor]:
    """The tensors of a folder's safetensors files, checked against the files' sizes."""
    tensors = [tensor for path in files(folder) for tensor in _read_header(path)]
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        twice = next(tensor for tensor in tensors if names.count(tensor.name) > 1)
        raise CheckpointError(f"{twice} is in another file of the checkpoint too.")
    return tensors


def files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: model.safetensors, or the shards of its index."""
    if (folder / FILE).is_file():
        return [folder / FILE]
    if (folder / INDEX).is_file():
        shards = read_json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(s, str) for s in shards.values()):
            raise CheckpointError(f'{folder / INDEX} has no "weight_map" from tensors to files.')
        names = sorted(set(shards.values()))
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise CheckpointError(f"{folder / INDEX} names {name!r}, which is no file beside it.")
        return [folder / name for name in names]
    others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.h5", "*.gguf") for path in folder.glob(pattern))
    hint = f" It has {', '.join(others)}, which mlx_embed does not open; save it as safetensors." if others else ""
    raise CheckpointError(f"{folder} has no {FILE}.{hint}")


def _load(path: Path) -> dict[str, mx.array]:
    """The tensors of a file whose header is checked, lazily."""
    try:
        loaded: Any = mx.load(str(path))
    except (RuntimeError, ValueError) as error:  # MLX parses the header again, and by rules of its own
        raise CheckpointError(f"{path} is not a safetensors file that MLX reads: {error}") from error
    return dict(loaded)


def _read_header(path: Path) -> list[Tensor]:
    """Parse and check one safetensors header: an 8-byte length, JSON, then data that the offsets must tile."""
    broken = f"{path} is not a sound safetensors file"
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise CheckpointError(f"{broken}: its header is cut off ({size} bytes in all); download it again.")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{broken}: its header is no JSON ({error}); download it again.") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{broken}: its header is no JSON object; download it again.")
    metadata = header.pop("__metadata__", None)
    if metadata is None:  # absent, or the null that MLX writes where there is none
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{broken}: its metadata is not text; download it again.")
    data_bytes = size - 8 - length
    tensors, spans = [], []
    for name, entry in header.items():
        try:
            dtype, shape = str(entry["dtype"]), tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
                raise ValueError("negative or fractional numbers")
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{broken}: the entry of tensor {name!r} is malformed ({error!r}).") from error
        if dtype not in _ITEM_BYTES:
            raise UnsupportedModelError(
                f"tensor {name!r} of {path} has dtype {dtype}; mlx_embed reads {', '.join(_ITEM_BYTES)}."
            )
        if end > data_bytes:
            raise CheckpointError(
                f"{path} is truncated: tensor {name!r} ends at byte {end} of {data_bytes}; download it again."
            )
        if end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
            raise CheckpointError(f"{broken}: tensor {name!r} of shape {shape} {dtype} has {end - begin} bytes.")
        tensors.append(Tensor(path, name, dtype, shape))
        spans.append((begin, end))
    spans.sort()
    if any(begin != before for (begin, _), (_, before) in zip(spans, [(0, 0), *spans], strict=False)):
        raise CheckpointError(f"{broken}: its tensors overlap or leave gaps; download it again.")
    return tensors


def _stripped(name: str, module: ModuleType) -> str:
    for prefix in ("0.auto_model.", "model.", *module.PREFIXES):
        name = name.removeprefix(prefix)
    return name


def _rename(tensors: Iterable[Tensor], module: ModuleType) -> dict[str, Tensor]:
    """The checkpoint's names in the architecture's terms, without prefixes and unused heads."""
    renamed: dict[str, Tensor] = {}
    for tensor in tensors:
        name = _stripped(tensor.name, module)
        if name.startswith(module.UNUSED):
            continue
        for old, new in module.RENAMES:
            name = name.replace(old, new)
        if name in renamed:
            raise CheckpointError(f"{tensor} and {renamed[name].name!r} are both the encoder's {name!r}.")
        renamed[name] = tensor
    return renamed


def _fuse(tensors: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """Join the layers of each group in _FUSED, where all of them are there."""
    fused: dict[str, list[Tensor]] = {}
    taken: set[str] = set()
    for name in tensors:
        for whole, (first, *_) in _FUSED.items():
            prefix, found, kind = name.rpartition(f".{first}.")
            parts = [f"{prefix}.{part}.{kind}" for part in _FUSED[whole]]
            if found and all(part in tensors for part in parts):
                fused[f"{prefix}.{whole}.{kind}"] = [tensors[part] for part in parts]
                taken.update(parts)
    return fused | {name: [tensor] for name, tensor in tensors.items() if name not in taken}


def _quantization(value: Any) -> tuple[int, int]:
    bits, group_size = (value.get("bits"), value.get("group_size")) if isinstance(value, dict) else (None, None)
    if type(bits) is not int or bits not in (4, 8) or type(group_size) is not int or group_size not in (32, 64, 128):
        raise CheckpointError(
            f'config.json has "quantization": {value!r}; mlx_embed reads 4 or 8 bits in groups of 32, 64 or 128.'
        )
    return bits, group_size


def _check_sizes(config: Any, sources: Mapping[str, list[Tensor]]) -> None:
    layers = {int(match[1]) for name in sources if (match := re.match(r"layers\.(\d+)\.", name))}
    if config.num_hidden_layers > len(layers):
        raise CheckpointError(
            f"config.json asks for {config.num_hidden_layers} layers, but the weights hold {len(layers)}."
        )


def _check(
    folder: Path,
    sources: Mapping[str, list[Tensor]],
    expected: Mapping[str, mx.array],
    renames: Sequence[tuple[str, str]],
) -> None:
    missing = [
        _original(part, renames)
        for name in sorted(expected.keys() - sources.keys())
        for part in _parts(name, renames)
        if part not in sources
    ]
    if missing:
        names = ", ".join(path.name for path in files(folder))
        raise CheckpointError(f"{folder} lacks {_some(missing)} in {names}, which the architecture needs.")
    unexpected = sorted(sources.keys() - expected.keys())
    if unexpected:
        raise CheckpointError(
            f"{folder} has {_some([str(sources[name][0]) for name in unexpected])}, which the architecture does not "
            "have; is config.json that of these weights?"
        )
    for name, parts in sources.items():
        whole = expected[name].shape
        shape = (whole[0] // len(parts), *whole[1:])
        floating = expected[name].dtype != mx.uint32
        for part in parts:
            if part.shape != shape:
                raise CheckpointError(f"{part} has shape {part.shape}, where config.json means {shape}.")
            if floating and part.dtype not in _FLOATS:
                raise CheckpointError(f"{part} has dtype {part.dtype}, where a weight is F32, F16 or BF16.")


def _parts(name: str, renames: Sequence[tuple[str, str]]) -> list[str]:
    """A name of the encoder's, or those that it is fused from where the checkpoint has them apart."""
    for whole, parts in _FUSED.items():
        if renames and f".{whole}." in name and not any(new.endswith(f"{whole}.") for _, new in renames):
            return [name.replace(f".{whole}.", f".{part}.") for part in parts]
    return [name]


def _original(name: str, renames: Sequence[tuple[str, str]]) -> str:
    """The checkpoint's name for one of the encoder's."""
    for old, new in reversed(renames):
        if not old.startswith("LayerNorm."):  # gamma and beta: old spellings
            name = name.replace(new, old)
    return name


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
