"""Llama (Touvron et al., 2023) as an embedder; "llama_bidirec" (llama-embed-nemotron) is one that is not causal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn

from mlx_embed.architectures import decoder
from mlx_embed.architectures.decoder import (
    HEAD,
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
from mlx_embed.architectures.direction import checked_direction, decoder_is_causal
from mlx_embed.architectures.ops import activation

__all__ = ["HEAD", "LAYOUT", "PREFIXES", "RENAMES", "Config", "Model"]


@dataclass(frozen=True)
class Config(decoder.Config):
    """The part of config.json that shapes the decoder."""

    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        expect(config, hidden_act="silu")
        # NVIDIA's own model_type of Llamas whose tokens see the whole text.
        both = config.get("model_type") == "llama_bidirec"
        causal = checked_direction(config, causal=False) if both else decoder_is_causal(config)
        derived = turned(config, 10_000.0) | {"causal": causal}
        return read(cls, config, derived | with_sizes_of_heads(config))


def Model(config: Config) -> nn.Module:  # noqa: N802
    """The decoder: token ids to hidden states."""
    biases = {"qkv_bias": config.attention_bias, "out_bias": config.attention_bias, "mlp_bias": config.mlp_bias}
    style = Style(activation("silu"), config.head_dim**-0.5, **biases)
    return uniform(config, style)
