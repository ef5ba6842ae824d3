"""From a checkpoint's tensors to its encoder's parameters, and back."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_embed.architectures import Architecture, EncoderConfig
from mlx_embed.checkpoint.folder import Checkpoint
from mlx_embed.checkpoint.modules import Module, Normalize
from mlx_embed.checkpoint.safetensors import (
    FILE,
    FLOATS,
    Tensor,
    check_finite,
    files,
    load,
    load_float32,
    read_headers,
)
from mlx_embed.errors import CheckpointError

# MLX's own tools write this into the metadata of their files.
MLX_FORMAT = {"format": "mlx"}

# Linear layers that run as one, joined in this order.
_FUSED = {"qkv": ("q", "k", "v"), "up_gate": ("up", "gate")}


def load_encoder(checkpoint: Checkpoint, dtype: mx.Dtype | None) -> nn.Module:
    """Build the encoder that config.json describes and fill it with the checkpoint's weights, evaluated.

    `dtype` is that of all floating parameters; None keeps the checkpoint's.

    Raises:
        CheckpointError: a file that is missing, truncated or no safetensors; a tensor that is missing, unexpected,
            of another shape, of a dtype that weights cannot have, or not finite. The message names file and tensor.
        UnsupportedModelError: a quantization or dtype that is not read.
    """
    tensors = read_headers(checkpoint.transformer)
    # A file that this package wrote has these names already.
    sources = _fuse(_rename(tensors, checkpoint.architecture))
    # Building an encoder takes time for each layer that config.json asks for, so the number is checked first.
    _check_layers(checkpoint.encoder_config, sources)
    encoder = checkpoint.architecture.Model(checkpoint.encoder_config)
    quantization = checkpoint.config.get("quantization")
    if quantization is not None:
        quantize(encoder, *_quantization(quantization))
    expected = dict(tree_flatten(encoder.parameters()))
    # RENAMES may hold the names of several sources. What is missing is named as in this checkpoint, so only the pairs
    # that it uses are turned back.
    spoken = [pair for pair in checkpoint.architecture.RENAMES if any(pair[0] in tensor.name for tensor in tensors)]
    _check(checkpoint.transformer, sources, expected, spoken)
    parameters = _read(sources, dtype)
    encoder.load_weights(list(parameters.items()), strict=True)
    encoder.eval()
    mx.eval(encoder.parameters())
    return encoder


def _read(sources: Mapping[str, list[Tensor]], dtype: mx.Dtype | None) -> dict[str, mx.array]:
    opened = {path: load(path) for path in {part.file for parts in sources.values() for part in parts}}
    parameters = {}
    for name, parts in sources.items():
        arrays = [opened[part.file][part.name] for part in parts]
        array = arrays[0] if len(arrays) == 1 else mx.concatenate(arrays)
        if dtype is not None and mx.issubdtype(array.dtype, mx.floating):
            array = array.astype(dtype)
        parameters[name] = array
    check_finite(parameters, sources)
    return parameters


def load_modules(checkpoint: Checkpoint) -> list[dict[str, mx.array]]:
    """The weights of each of the checkpoint's modules, float32, evaluated; none for one that has no weights.

    Raises:
        CheckpointError: a file that is missing or broken; a tensor that is missing, unexpected, of another shape or not
            finite.
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
    return load_float32(tensors, module.shapes)


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


def stripped(name: str, architecture: Architecture) -> str:
    """A tensor's name without the prefixes that checkpoints of the architecture may have."""
    for prefix in ("0.auto_model.", "model.", *architecture.PREFIXES):
        name = name.removeprefix(prefix)
    return name


def _rename(tensors: Iterable[Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """The checkpoint's names in the architecture's terms, without prefixes and unused heads."""
    renamed: dict[str, Tensor] = {}
    for tensor in tensors:
        name = stripped(tensor.name, architecture)
        if name.startswith(architecture.UNUSED):
            continue
        for old, new in architecture.RENAMES:
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


def _check_layers(config: EncoderConfig, sources: Mapping[str, list[Tensor]]) -> None:
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
            if floating and part.dtype not in FLOATS:
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
        if not old.startswith("LayerNorm."):  # gamma and beta, which only very old checkpoints have
            name = name.replace(new, old)
    return name


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
