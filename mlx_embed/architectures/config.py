"""Reading config.json into an architecture's Config."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import MappingProxyType
from typing import Any, TypeVar, get_origin

from mlx_embed.arguments import type_name
from mlx_embed.errors import CheckpointError, UnsupportedModelError

# Far more than any real model has. A larger number could overflow when shapes are computed from it.
LARGEST_SIZE = 10**7
# What float32 still holds.
LARGEST_FLOAT = 1e38
# Whole numbers that may be 0; all others are at least 1.
MAY_BE_ZERO = ("moe_every_n_layers", "num_experts", "pad_token_id", "type_vocab_size")

Config = TypeVar("Config")


def rope_theta(
    config: Mapping[str, Any], default: float, *, kind: str | None = None, name: str = "rope_theta"
) -> float:
    """The base of RoPE's frequencies: in rope_parameters since transformers 5, before that on its own, as `name`.

    `kind` picks the attention layers that have parameters of their own.
    """
    given = config.get("rope_parameters")
    parameters = given.get(kind) if kind is not None and isinstance(given, dict) else given
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict) or parameters.get("rope_type", "default") != "default":
        raise UnsupportedModelError(f'config.json has "rope_parameters": {given!r}; mlx_embed has rope_type "default".')
    theta = parameters.get("rope_theta", config.get(name, default))
    if isinstance(theta, bool) or not isinstance(theta, (int, float)) or not 1 < theta <= LARGEST_FLOAT:
        raise CheckpointError(f'config.json has "{name}": {theta!r}, where a number above 1 is needed.')
    return float(theta)


def read_config(
    cls: type[Config], config: Mapping[str, Any], names: Mapping[str, str] = MappingProxyType({})
) -> Config:
    """Build the dataclass `cls` from config.json's values; CheckpointError names a missing or misshapen one.

    `names` maps the fields that config.json calls otherwise.
    """
    values = {}
    for field in fields(cls):  # type: ignore[arg-type]
        name = names.get(field.name, field.name)
        value = config.get(name, field.default)
        if value is MISSING:
            raise CheckpointError(f'config.json has no "{name}", which model_type {config.get("model_type")!r} needs.')
        # To Python 3.10 a tuple[str, ...] is a type as well, of which nothing is an instance.
        kind = field.type if isinstance(field.type, type) and get_origin(field.type) is None else type(value)
        sound = isinstance(value, (int, float) if kind is float else kind) and (kind is bool) == isinstance(value, bool)
        least = 0 if field.name in MAY_BE_ZERO else 1
        if sound and kind is int:
            sound = least <= value <= LARGEST_SIZE
        elif sound and kind is float:
            sound = 0 < value <= LARGEST_FLOAT
        if not sound:
            raise CheckpointError(f'config.json has "{name}": {value!r}, where {type_name(kind)} is needed.')
        values[field.name] = float(value) if kind is float else value  # MLX takes no int beyond 64 bits
    result = cls(**values)
    heads = values.get("num_attention_heads", 1)
    hidden_size = values.get("hidden_size", 0)
    if heads < 1 or ("head_dim" not in values and hidden_size % heads):  # unless heads have a size of their own
        raise CheckpointError(f"config.json has hidden_size {hidden_size} for {heads} attention heads.")
    return result
