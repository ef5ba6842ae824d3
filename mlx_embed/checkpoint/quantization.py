"""Quantized weights, as this package, mlx-lm and mlx-embeddings write them: which layers, and how.

A layer is quantized where the weights hold its `scales`, which is what their code goes by. config.json's "quantization"
says how, for all layers, and under the path of a layer for that one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_embed.checkpoint.safetensors import FLOATS, Tensor, load_tensors
from mlx_embed.errors import CheckpointError, UnsupportedModelError

AFFINE_BITS = (2, 3, 4, 5, 6, 8)
AFFINE_GROUPS = (32, 64, 128)
# Bits and weights a group of the modes that have one of each; their scales are 8-bit floats, and there are no offsets.
FLOAT_MODES = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}


@dataclass(frozen=True)
class Quantization:
    """How a layer's weight is packed: `bits` each, with one scale for every `group_size` of a row."""

    group_size: int
    bits: int
    mode: str = "affine"


@dataclass(frozen=True)
class Dequantized:
    """Makes floats of a packed weight, once, when it is read."""

    scales: Tensor
    biases: Tensor | None
    how: Quantization
    dtype: mx.Dtype

    def __call__(self, weight: mx.array) -> mx.array:
        """uint32 [out, in * bits / 32] -> [out, in]."""
        more = {"scales": self.scales} | ({} if self.biases is None else {"biases": self.biases})
        arrays = load_tensors(more)
        # The float modes give bfloat16 unless told otherwise; it holds their numbers exactly.
        return mx.dequantize(weight, arrays["scales"], arrays.get("biases"), **asdict(self.how), dtype=self.dtype)


def layers(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Quantization]:
    """How each quantized layer of an encoder is, by its name among `tensors`.

    Raises:
        CheckpointError: a quantization that is not read, or a layer that is said to be quantized and is not, or the
            other way round.
        UnsupportedModelError: a quantization by other software.
    """
    stated = config.get("quantization")
    method = config.get("quantization_config")
    if stated is None and method is not None:
        named = method.get("quant_method") if isinstance(method, dict) else method
        raise UnsupportedModelError(
            f'config.json has "quantization_config" with "quant_method": {named!r}; mlx_embed reads MLX\'s own. '
            "Take the original weights; `mlx-embed convert --quantize` makes them small."
        )
    if stated is None:
        default, own = None, {}
    elif isinstance(stated, dict):
        default, own = _how(stated), {key: x for key, x in stated.items() if isinstance(x, (dict, bool))}
    else:
        raise _unread(stated)
    found = {}
    for name, tensor in tensors.items():
        path, _, kind = name.rpartition(".")
        if kind == "global_scale":
            raise UnsupportedModelError(f"{tensor} scales nvfp4 once more, which mlx_embed does not compute.")
        original = tensor.name.rpartition(".")[0]
        given = own.get(original, True)
        if kind == "scales":
            if default is None or given is False:
                says = 'has no "quantization"' if default is None else f"says that {original} is not quantized"
                raise CheckpointError(f"{tensor} belongs to a quantized layer, but config.json {says}.")
            found[path] = default if given is True else _how(given)
        elif kind == "weight" and isinstance(given, dict) and f"{path}.scales" not in tensors:
            raise CheckpointError(f"config.json says how {original} is quantized, but there is no {original}.scales.")
    return found


def dequantized(tensors: Mapping[str, Tensor], path: str, how: Quantization) -> dict[str, Tensor]:
    """`tensors` with a quantized layer's weight as floats, of the dtype that the model's other numbers have.

    Raises:
        CheckpointError: tensors that are missing or do not fit.
    """
    names = [f"{path}.weight", f"{path}.scales", *([f"{path}.biases"] if how.mode == "affine" else [])]
    parts = [tensors.get(name) for name in names]
    weight, scales = parts[:2]
    if weight is None or scales is None or None in parts:
        missing = [name for name, part in zip(names, parts, strict=True) if part is None]
        raise CheckpointError(f"{scales} is of a quantized layer that lacks {', '.join(missing)}.")
    columns = weight.shape[-1] * 32 // how.bits if weight.shape else 0
    if scales.shape != (*weight.shape[:-1], columns // how.group_size) or columns % how.group_size:
        raise CheckpointError(
            f"{weight} has shape {weight.shape} and its scales {scales.shape}, which is not {spelled(how)}."
        )
    floats = [tensor.dtype for tensor in tensors.values() if tensor.dtype in FLOATS]
    dtype = scales.dtype if how.mode == "affine" else next(iter(floats), "BF16")
    if dtype not in FLOATS or weight.dtype != "U32" or (how.mode != "affine" and scales.dtype != "U8"):
        raise CheckpointError(f"{weight} is {weight.dtype} and its scales {scales.dtype}: not {spelled(how)}.")
    change = Dequantized(scales, parts[2] if len(parts) > 2 else None, how, FLOATS[dtype])
    plain = replace(weight, dtype=dtype, shape=(*weight.shape[:-1], columns), changes=(change,))
    return {name: x for name, x in tensors.items() if name not in names} | {f"{path}.weight": plain}


def quantize(encoder: nn.Module, found: Mapping[str, Quantization]) -> None:
    """Make the layers of an encoder quantized ones, to be filled with weights that are.

    Raises:
        CheckpointError: groups that do not divide a layer's rows.
    """

    def how(path: str, module: nn.Module) -> dict[str, Any] | bool:
        if path not in found or not hasattr(module, "to_quantized"):
            return False
        if module.weight.shape[-1] % found[path].group_size:
            raise CheckpointError(f"{path} has rows of {module.weight.shape[-1]}, which is no {spelled(found[path])}.")
        return asdict(found[path])

    nn.quantize(encoder, class_predicate=how)


def stated(encoder: nn.Module) -> dict[str, Any] | None:
    """What config.json is to say of an encoder's quantization; None where no layer is quantized."""
    found = {
        path: {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
        for path, module in encoder.named_modules()
        if "scales" in module
    }
    if not found:
        return None
    every = [tuple(how.values()) for how in found.values()]
    group_size, bits, mode = max(set(every), key=every.count)
    default = {"group_size": group_size, "bits": bits, "mode": mode}
    return default | {path: how for path, how in sorted(found.items()) if how != default}


def spelled(how: Quantization) -> str:
    """As a person would say it."""
    return f"{how.mode}, {how.bits} bits in groups of {how.group_size}"


def _how(value: Mapping[str, Any]) -> Quantization:
    mode = value.get("mode", "affine")
    bits, group_size = FLOAT_MODES.get(mode, (None, None)) if isinstance(mode, str) else (None, None)
    bits, group_size = value.get("bits", bits), value.get("group_size", group_size)
    sound = type(bits) is int and type(group_size) is int
    if mode == "affine":
        sound = sound and bits in AFFINE_BITS and group_size in AFFINE_GROUPS
    else:
        sound = sound and isinstance(mode, str) and FLOAT_MODES.get(mode) == (bits, group_size)
    if not sound or value.get("quantize_input"):
        raise _unread(value)
    return Quantization(group_size, bits, mode)


def _unread(value: Any) -> CheckpointError:
    modes = ", ".join(f"{mode} ({bits} bits in groups of {group})" for mode, (bits, group) in FLOAT_MODES.items())
    return CheckpointError(
        f'config.json has "quantization": {value!r:.200}; mlx_embed reads affine {", ".join(map(str, AFFINE_BITS))} '
        f"bits in groups of {', '.join(map(str, AFFINE_GROUPS))}, {modes}."
    )
