"""From a checkpoint's tensors to its encoder's parameters, and back."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_embed.architectures import Architecture, EncoderConfig
from mlx_embed.architectures.expert_layer import ExpertLayer
from mlx_embed.checkpoint import adapters, quantization
from mlx_embed.checkpoint.checkpoint import Checkpoint
from mlx_embed.checkpoint.modules import Dense, Module, Normalize
from mlx_embed.checkpoint.quantization import Quantization
from mlx_embed.checkpoint.safetensors import (
    FILE,
    FLOATS,
    Float32,
    Pages,
    Tensor,
    check_finite,
    check_whole,
    files,
    load_float32,
    load_tensors,
    map_float32,
    read_headers,
)
from mlx_embed.checkpoint.tasks import lora_tensors, of_task
from mlx_embed.errors import CheckpointError

_log = logging.getLogger("mlx_embed")

# MLX's own tools write this into the metadata of their files.
MLX_FORMAT = {"format": "mlx"}

# A pooler, which transformers' encoders have and embedding does not need, and buffers that are computed anew.
_SILENT = re.compile(r"pooler\..*|(?:.*\.)?(?:position_ids|inv_freq|masked_bias)")

# What quantized weights and the scales of some are kept as.
_PACKED = {mx.uint32: "U32", mx.uint8: "U8"}

# Linear layers that run as one, joined in this order.
_FUSED = {"qkv": ("q", "k", "v"), "up_gate": ("up", "gate")}


def _shares(config: EncoderConfig) -> dict[str, dict[str, int]]:
    """What part of the whole each of those layers is: a decoder may have fewer heads of key and value."""
    heads = getattr(config, "num_attention_heads", 1)
    kv_heads = getattr(config, "num_key_value_heads", heads)
    return {"qkv": {"q": heads, "k": kv_heads, "v": kv_heads}, "up_gate": {"up": 1, "gate": 1}}


def load_encoder(
    checkpoint: Checkpoint, dtype: mx.Dtype | None, pages: Mapping[Path, Pages] | None = None
) -> nn.Module:
    """Build the encoder that config.json describes and fill it with the checkpoint's weights, evaluated.

    `dtype` is that of all floating parameters; None keeps the checkpoint's. What the encoder has no use for, such as a
    head, or layers that config.json cuts off, is passed over with a line in the log, as transformers does.

    `pages`, those of the checkpoint's weights by `map_files`, are for who takes the weights out of the encoder again,
    and wants float32: those that are kept so are then numpy arrays, of these pages where they are not joined.

    Raises:
        CheckpointError: a file that is missing, truncated or no safetensors; a tensor that is missing, unexpected
            within the encoder, of another shape, of a dtype that weights cannot have, or not finite. The message names
            file and tensor.
        UnsupportedModelError: a quantization, adapter or dtype that is not read.
    """
    architecture, config = checkpoint.architecture, checkpoint.encoder_config
    if architecture.LAYOUT == "table":
        from mlx_embed.checkpoint.static import load_table

        return load_table(checkpoint)
    # A file that this package wrote has these names already.
    tensors = read_tensors(checkpoint)
    renamed = {name: tensor for name, tensor in tensors.items() if not _SILENT.fullmatch(name)}
    # Building an encoder takes time for each layer that config.json asks for, so the number is checked first.
    _check_layers(config, renamed)
    told = getattr(config, "for_tensors", None)
    encoder = architecture.Model(config if told is None else told(renamed.keys()))
    renamed = _used(checkpoint, renamed, set(encoder))
    renamed, quantized = _quantized(checkpoint, renamed, encoder)
    sources = _fuse(renamed)
    quantization.quantize(
        encoder, {path: quantized[parts[0].name] for name, parts in sources.items() if (path := _scaled(name))}
    )
    expected = dict(tree_flatten(encoder.parameters()))
    # RENAMES may hold the names of several sources. What is missing is named as in this checkpoint, so only the pairs
    # that it uses are turned back.
    spoken = [pair for pair in architecture.RENAMES if any(pair[0] in tensor.name for tensor in tensors.values())]
    _check(checkpoint.weights, sources, expected, spoken, _shares(config))
    pages = pages or {}
    found = _mapped(sources, pages)
    check_whole(pages)
    parameters = _read({name: parts for name, parts in sources.items() if name not in found}, dtype)
    encoder.load_weights(list(parameters.items()), strict=not found)
    modules = dict(encoder.named_modules())
    for name, array in found.items():
        path, _, kind = name.rpartition(".")
        modules[path][kind] = array
    encoder.eval()
    mx.eval(encoder.parameters())
    return encoder


def read_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tensors of a checkpoint's weights, with what its adapter makes of them, by what the architecture calls them.

    Raises: as `read_headers`, and CheckpointError where two tensors are one.
    """
    headers = of_task(read_headers(checkpoint.weights), checkpoint.config, checkpoint.tasks, checkpoint.task)
    tensors = _rename(headers, checkpoint.architecture)
    if checkpoint.adapter is None:
        return tensors

    def meaning(name: str) -> str:
        own = encoder_name(name, checkpoint.architecture)
        return _copies(checkpoint.architecture).get(own, own)

    return adapters.merged(checkpoint.adapter, tensors, meaning, _shares(checkpoint.encoder_config))


def load_tasks(checkpoint: Checkpoint) -> dict[str, mx.array]:
    """The LoRAs that lie in the weights' file, by what the architecture calls them."""
    found = lora_tensors(read_headers(checkpoint.weights))
    return load_tensors({encoder_name(tensor.name, checkpoint.architecture): tensor for tensor in found})


def _used(checkpoint: Checkpoint, renamed: Mapping[str, Tensor], parts: set[str]) -> dict[str, Tensor]:
    """Those tensors that are under one of the encoder's own names, of the layers that it has."""
    layers = checkpoint.encoder_config.num_hidden_layers

    def within(name: str) -> bool:
        match = re.match(r"layers\.(\d+)\.", name)
        return name.partition(".")[0] in parts and (match is None or int(match[1]) < layers)

    used = {name: tensor for name, tensor in renamed.items() if within(name)}
    # The head of a reranker is of use, to CrossEncoder.
    head = tuple(f"{layer}." for layer, _ in checkpoint.architecture.HEAD) if _is_classifier(checkpoint) else ()
    over = [tensor.name for name, tensor in renamed.items() if name not in used and not name.startswith(head)]
    if over:
        _log.info("%s has %s, for which the encoder has no use: passed over.", checkpoint.weights, _some(sorted(over)))
    return used


def _is_classifier(checkpoint: Checkpoint) -> bool:
    named = checkpoint.config.get("architectures")
    return isinstance(named, list) and any(str(name).endswith("ForSequenceClassification") for name in named)


def _quantized(
    checkpoint: Checkpoint, renamed: dict[str, Tensor], encoder: nn.Module
) -> tuple[dict[str, Tensor], dict[str, Quantization]]:
    """The tensors, and how each quantized layer is, by the name of its scales in the file.

    Layers that are to run as one, and are not quantized alike, become floats. So do embeddings of the modes whose
    values MLX hands out as bfloat16 whatever the model computes in.
    """
    found = quantization.layers(checkpoint.config, renamed)
    embeddings = {path for path, module in encoder.named_modules() if isinstance(module, nn.Embedding)}
    apart = {path for path, how in found.items() if path in embeddings and how.mode != "affine"}
    for path in found:
        prefix, _, last = path.rpartition(".")
        group = next((parts for parts in _FUSED.values() if last in parts), ())
        beside = {found.get(f"{prefix}.{part}") for part in group if f"{prefix}.{part}.weight" in renamed}
        if len(beside) > 1:
            apart.add(path)
    names = {renamed[f"{path}.scales"].name: how for path, how in found.items() if path not in apart}
    for path in sorted(apart):
        renamed = quantization.dequantized(renamed, path, found[path])
    return renamed, names


def _scaled(name: str) -> str | None:
    """The layer that a tensor is the scales of."""
    path, _, kind = name.rpartition(".")
    return path if kind == "scales" else None


def _mapped(sources: Mapping[str, list[Tensor]], pages: Mapping[Path, Pages]) -> dict[str, Float32]:
    """The parameters all of whose parts can be mapped; those of quantized layers are for MLX."""
    plain = {name: parts for name, parts in sources.items() if f"{name.rpartition('.')[0]}.scales" not in sources}
    arrays = map_float32({(name, i): part for name, parts in plain.items() for i, part in enumerate(parts)}, pages)
    parameters = {}
    for name, parts in plain.items():
        found = [arrays[name, i] for i in range(len(parts)) if (name, i) in arrays]
        if len(found) == len(parts):
            parameters[name] = found[0] if len(found) == 1 else np.concatenate(found)
    return parameters


def _read(sources: Mapping[str, list[Tensor]], dtype: mx.Dtype | None) -> dict[str, mx.array]:
    arrays = load_tensors({(name, i): part for name, parts in sources.items() for i, part in enumerate(parts)})
    parameters = {}
    for name, parts in sources.items():
        found = []
        for i, part in enumerate(parts):
            array = arrays[name, i]
            if mx.issubdtype(array.dtype, mx.floating):
                # An adapter is added in float32, whatever the weight is kept in.
                array = array.astype(dtype or FLOATS[part.dtype])
            found.append(array)
        parameters[name] = found[0] if len(found) == 1 else mx.concatenate(found)
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
    if isinstance(module, Dense) and module.beside:
        tensors = {name: tensor for name, tensor in tensors.items() if name in module.shapes}
    if tensors.keys() != module.shapes.keys():
        raise CheckpointError(
            f"{module.folder} has the tensors {', '.join(sorted(tensors)) or 'none'}, where its config.json means "
            f"{', '.join(sorted(module.shapes))}."
        )
    return load_float32(tensors, module.shapes)


def quantize(encoder: nn.Module, bits: int, group_size: int) -> None:
    """Quantize the encoder's linear layers and word embeddings in place, wherever group_size divides their rows."""

    def wanted(path: str, module: nn.Module) -> bool:
        if path.endswith(("word_embeddings", "embed_tokens")) or isinstance(module, (nn.Linear, ExpertLayer)):
            return bool(module.weight.shape[-1] % group_size == 0)
        return False

    nn.quantize(encoder, group_size=group_size, bits=bits, class_predicate=wanted)


def save_encoder(encoder: nn.Module, folder: Path, head: Mapping[str, mx.array] = MappingProxyType({})) -> None:
    """Write the encoder's parameters, under this package's names, and a head's, as `folder`/model.safetensors."""
    # In order, so that the same weights make the same file.
    tensors = dict(sorted([*tree_flatten(encoder.parameters()), *head.items()]))
    mx.save_safetensors(str(folder / FILE), tensors, metadata=MLX_FORMAT)


def encoder_name(name: str, architecture: Architecture) -> str:
    """What the architecture calls a tensor, whatever prefix a file has it under."""
    name = stripped(name, architecture)
    for old, new in architecture.RENAMES:
        name = name.replace(old, new)
    return name


def stripped(name: str, architecture: Architecture) -> str:
    """A tensor's name without the prefixes that checkpoints of the architecture may have."""
    name = adapters.plain_name(name)
    for prefix in ("0.auto_model.", "model.", *architecture.PREFIXES):
        name = name.removeprefix(prefix)
    return name


def _rename(tensors: Iterable[Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """The checkpoint's names in the architecture's terms."""
    renamed: dict[str, Tensor] = {}
    for tensor in tensors:
        name = encoder_name(tensor.name, architecture)
        if name in renamed:
            raise CheckpointError(f"{tensor} and {renamed[name].name!r} are both the encoder's {name!r}.")
        renamed[name] = tensor
    for copy, own in _copies(architecture).items():
        if copy in renamed:
            renamed.setdefault(own, renamed[copy])
            del renamed[copy]
    return renamed


def _copies(architecture: Architecture) -> Mapping[str, str]:
    return getattr(architecture, "COPIES", {})


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


def _check_layers(config: EncoderConfig, renamed: Mapping[str, Tensor]) -> None:
    layers = {int(match[1]) for name in renamed if (match := re.match(r"layers\.(\d+)\.", name))}
    if config.num_hidden_layers > len(layers):
        numbered = next((tensor.name for name, tensor in sorted(renamed.items()) if re.search(r"\.\d+\.", name)), None)
        other = (
            f" Their names, such as {numbered!r}, are not those of this model_type: is config.json that of these "
            "weights, or are they below another name?"
        )
        raise CheckpointError(
            f"config.json asks for {config.num_hidden_layers} layers, but the weights hold {len(layers)}."
            f"{other if numbered is not None and not layers else ''}"
        )


def _check(
    folder: Path,
    sources: Mapping[str, list[Tensor]],
    expected: Mapping[str, mx.array],
    renames: Sequence[tuple[str, str]],
    shares: Mapping[str, Mapping[str, int]],
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
        share = list(shares[name.split(".")[-2]].values()) if len(parts) > 1 else [1]
        packed = _PACKED.get(expected[name].dtype)
        for part, rows in zip(parts, share, strict=True):
            shape = (whole[0] * rows // sum(share), *whole[1:])
            if part.shape != shape:
                raise CheckpointError(f"{part} has shape {part.shape}, where config.json means {shape}.")
            if part.dtype != packed and (packed or part.dtype not in FLOATS):
                raise CheckpointError(f"{part} has dtype {part.dtype}, where {packed or 'F32, F16 or BF16'} is needed.")


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
