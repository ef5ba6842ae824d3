"""EuroBERT (Boizard et al., 2025): an encoder of Llama's layers, whose tokens see the whole text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn

from mlx_embed.architectures import decoder
from mlx_embed.architectures.decoder import (
    LAYOUT,
    PREFIXES,
    RENAMES,
    Style,
    expect,
    read,
    turned,
    uniform,
    with_sizes_of_heads,
)
from mlx_embed.architectures.direction import checked_direction
from mlx_embed.architectures.ops import activation

__all__ = ["HEAD", "LAYOUT", "PREFIXES", "RENAMES", "Config", "Model"]

HEAD = (("dense", "GELU"), ("classifier", "Identity"))


@dataclass(frozen=True)
class Config(decoder.Config):
    """The part of config.json that shapes the encoder."""

    rms_norm_eps: float = 1e-5
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        expect(config, hidden_act="silu")
        derived = turned(config, 10_000.0) | {"causal": checked_direction(config, causal=False)}
        return read(cls, config, derived | with_sizes_of_heads(config))


def Model(config: Config) -> nn.Module:  # noqa: N802
    """The encoder: token ids to hidden states."""
    return uniform(config, style(config))


def style(config: Any) -> Style:
    """How layers are that may have biases, which config.json says of attention and of the feed-forward."""
    biases = {"qkv_bias": config.attention_bias, "out_bias": config.attention_bias, "mlp_bias": config.mlp_bias}
    return Style(activation("silu"), config.head_dim**-0.5, **biases)
