"""Qwen2 (Yang et al., 2024) as an embedder and reranker: gte-Qwen2, mxbai-rerank-v2."""

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
    check_all_full,
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
        expect(config, hidden_act="silu", use_sliding_window=False)
        check_all_full(config)
        derived = turned(config, 10_000.0) | {"causal": decoder_is_causal(config)}
        return read(cls, config, derived | with_sizes_of_heads(config))


def Model(config: Config) -> nn.Module:  # noqa: N802
    """The decoder: token ids to hidden states."""
    style = Style(activation("silu"), config.head_dim**-0.5, qkv_bias=True)
    return uniform(config, style)
