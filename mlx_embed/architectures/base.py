"""Reading config.json into an architecture's Config."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from mlx_embed.errors import CheckpointError

# Far above any real model's; keeps an absurd config.json from overflowing a shape.
LARGEST_SIZE = 10**7

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
