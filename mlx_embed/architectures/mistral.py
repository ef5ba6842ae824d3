"""Mistral (Jiang et al., 2023) as an embedder: e5-mistral."""

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
    """The part of config.json that shapes the decoder.

    A token sees only those less than `sliding_window` away; that many away too, where it sees both ways.
    """

    sliding_window: int = 4096

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        expect(config, hidden_act="silu")
        derived = turned(config, 10_000.0) | {"causal": decoder_is_causal(config)}
        if config.get("sliding_window", 0) is None:
            derived["sliding_window"] = config.get("max_position_embeddings")
        derived |= with_sizes_of_heads(config)
        return read(cls, config, derived)


def Model(config: Config) -> nn.Module:  # noqa: N802
    """The decoder: token ids to hidden states."""
    style = Style(activation("silu"), config.head_dim**-0.5)
    window = config.sliding_window - 1 if config.causal else config.sliding_window
    return uniform(config, style, window)
