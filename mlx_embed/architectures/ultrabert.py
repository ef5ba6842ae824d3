"""UltraBERT (DMIS Lab, 2026): EuroBERT's layers, of which most see only what is near, each kind with its own RoPE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn

from mlx_embed.architectures import decoder, eurobert
from mlx_embed.architectures.decoder import (
    LAYOUT,
    RENAMES,
    angles,
    expect,
    read,
    rope,
    sight,
    with_sizes_of_heads,
)
from mlx_embed.architectures.direction import checked_direction
from mlx_embed.architectures.gemma3_text import FULL, SLIDING
from mlx_embed.errors import CheckpointError

__all__ = ["HEAD", "LAYOUT", "PREFIXES", "RENAMES", "Config", "Model"]

PREFIXES = ("ultrabert.",)
HEAD = (("classifier", "Identity"),)


@dataclass(frozen=True)
class Config(decoder.Config):
    """The part of config.json that shapes the encoder.

    Attributes:
        rope_theta: the base of layers that see the whole text.
        sliding_theta: of the others.
        layer_types: FULL or SLIDING for each layer.
        sliding_window: how far a token may be away to be seen in a layer of the second kind.
    """

    sliding_theta: float = 10_000.0
    layer_types: tuple[str, ...] = ()
    sliding_window: int = 128
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        expect(config, hidden_act="silu")
        derived = _windows(config)
        types = derived["layer_types"]
        bases = config.get("rope_theta")
        if config.get("rope_parameters") is None and isinstance(bases, list):
            if len(bases) != len(types):
                raise CheckpointError(f'config.json has "rope_theta": {bases!r} for {len(types)} layers.')
            given = {kind: {"rope_theta": base} for kind, base in zip(types, bases, strict=True)}
            config = {**config, "rope_parameters": given, "rope_theta": None}
        full, scaling = rope({**config, "rope_theta": 2_560_000.0}, 2_560_000.0, kind=FULL)
        near, near_scaling = rope({**config, "rope_theta": cls.sliding_theta}, cls.sliding_theta, kind=SLIDING)
        if near_scaling is not None:
            raise CheckpointError(f"config.json scales RoPE in {SLIDING} layers, which mlx_embed does not.")
        derived |= {"rope_theta": full, "rope_scaling": scaling, "sliding_theta": near}
        derived["causal"] = checked_direction(config, causal=False)
        return read(cls, config, derived | with_sizes_of_heads(config))


def Model(config: Config) -> nn.Module:  # noqa: N802
    """The encoder: token ids to hidden states."""
    whole = sight(config, angles(config, config.rope_theta, config.rope_scaling))
    near = sight(config, angles(config, config.sliding_theta, None), config.sliding_window)
    sights = [whole if kind == FULL else near for kind in config.layer_types]
    return decoder.Model(config, eurobert.style(config), sights)


def _windows(config: Mapping[str, Any]) -> dict[str, Any]:
    """Which layers see the whole text, and how far the others do; of old a number for each layer, 0 or null for all."""
    count, types, found = config.get("num_hidden_layers"), config.get("layer_types"), {}
    windows = config.get("attention_windows")
    if windows is not None:
        if not isinstance(windows, list) or not all(type(window) in (int, type(None)) for window in windows):
            raise CheckpointError(
                f'config.json has "attention_windows": {windows!r}, where a list of numbers is needed.'
            )
        if own := [window for window in windows if window]:
            found["sliding_window"] = own[0]
        types = types or [SLIDING if window else FULL for window in windows]
    if types is None:
        types = [SLIDING if (i + 1) % 3 else FULL for i in range(count if isinstance(count, int) else 0)]
    if not isinstance(types, list) or not {*map(str, types)} <= {FULL, SLIDING} or len(types) != count:
        raise CheckpointError(f'config.json has "layer_types": {types!r:.200} for {count!r} layers.')
    return found | {"layer_types": tuple(types)}
