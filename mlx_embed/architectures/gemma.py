"""Gemma (Gemma Team, 2024) as a reranker: bge-reranker-v2-gemma."""

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
from mlx_embed.architectures.direction import decoder_is_causal
from mlx_embed.architectures.ops import activation

__all__ = ["HEAD", "LAYOUT", "PREFIXES", "RENAMES", "Config", "Model"]


@dataclass(frozen=True)
class Config(decoder.Config):
    """The part of config.json that shapes the decoder."""

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        # In Gemma's own files "gelu" means the approximation by tanh; transformers takes it so too.
        if config.get("hidden_act") != "gelu":
            expect(config, hidden_act="gelu_pytorch_tanh")
        expect(config, hidden_activation="gelu_pytorch_tanh", attention_bias=False)
        derived = turned(config, 10_000.0) | {"causal": decoder_is_causal(config)}
        if config.get("head_dim") is None:
            derived["head_dim"] = 256
        return read(cls, config, with_sizes_of_heads(config) | derived)


def Model(config: Config) -> nn.Module:  # noqa: N802
    """The decoder: token ids to hidden states."""
    root = config.hidden_size**0.5
    style = Style(activation("gelu_pytorch_tanh"), config.head_dim**-0.5, offset=1.0, embedding_scale=root)
    return uniform(config, style)
