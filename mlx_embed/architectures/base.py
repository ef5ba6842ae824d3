"""What the architectures share: configuration checks, the LayerNorm module, activations, fused projections."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, TypeVar, get_args

import mlx.core as mx
import mlx.nn as nn

from custom_kernels import gelu, gelu_tanh, layer_norm
from custom_kernels.packed import sequence_ids
from mlx_embed.errors import CheckpointError, UnsupportedModelError

LayerNormKind = Literal["fast", "custom", "reference"]
# Far above any real model's; keeps an absurd config.json from overflowing a shape.
LARGEST_SIZE = 10**7
LAYER_NORMS: tuple[str, ...] = get_args(LayerNormKind)

ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": nn.relu,
    "silu": nn.silu,
}

Config = TypeVar("Config")


def read_config(cls: type[Config], config: Mapping[str, Any]) -> Config:
    """Build the dataclass `cls` from config.json's values; CheckpointError names a missing or misshapen one."""
    values = {}
    for field in fields(cls):  # type: ignore[arg-type]
        value = config.get(field.name, field.default)
        if value is MISSING:
            raise CheckpointError(
                f'config.json has no "{field.name}", which model_type {config.get("model_type")!r} needs.'
            )
        kind = field.type if isinstance(field.type, type) else type(value)
        sound = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
        if not sound or (kind is int and not 0 <= value <= LARGEST_SIZE) or (kind is float and not value > 0):
            raise CheckpointError(f'config.json has "{field.name}": {value!r}, where a {kind.__name__} is needed.')
        values[field.name] = value
    result = cls(**values)
    heads = values.get("num_attention_heads", 1)
    if heads < 1 or values["hidden_size"] % heads:
        raise CheckpointError(f"config.json has hidden_size {values['hidden_size']} for {heads} attention heads.")
    return result


def activation(name: str) -> Callable[[mx.array], mx.array]:
    """The function that config.json calls `name`."""
    if name not in ACTIVATIONS:
        raise UnsupportedModelError(
            f'config.json has "hidden_act": {name!r}; mlx_embed has {", ".join(sorted(ACTIVATIONS))}.'
        )
    return ACTIVATIONS[name]


class LayerNorm(nn.Module):
    """LayerNorm of `x + residual` over the last axis, by the implementation named in `kind`."""

    def __init__(self, dims: int, eps: float, kind: LayerNormKind = "fast") -> None:
        super().__init__()
        self.weight = mx.ones((dims,))
        self.bias = mx.zeros((dims,))
        self.eps = eps
        self.backend = None if kind == "custom" else kind

    def __call__(self, x: mx.array, residual: mx.array | None = None) -> mx.array:
        """[T, dims] -> [T, dims]."""
        return layer_norm(x, self.weight, self.bias, self.eps, residual, backend=self.backend)


def offset_position_ids(input_ids: mx.array, cu_seqlens: mx.array, pad_token_id: int) -> mx.array:
    """RoBERTa's positions: real tokens count on from pad_token_id + 1, a literal pad token stays at pad_token_id."""
    real = (input_ids != pad_token_id).astype(mx.int32)
    seen = mx.cumsum(real)
    before = mx.concatenate([mx.zeros((1,), dtype=mx.int32), seen])[cu_seqlens]
    return (seen - before[sequence_ids(cu_seqlens, input_ids.shape[0])]) * real + pad_token_id
