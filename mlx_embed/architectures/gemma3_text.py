"""Gemma 3 (Gemma Team, 2025) as an embedder: EmbeddingGemma, whose tokens see what comes after them too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn

from mlx_embed.architectures import decoder
from mlx_embed.architectures.decoder import (
    HEAD,
    LAYOUT,
    PREFIXES,
    Style,
    angles,
    expect,
    read,
    rope,
    sight,
)
from mlx_embed.architectures.direction import checked_direction, flag
from mlx_embed.architectures.ops import activation
from mlx_embed.errors import UnsupportedModelError

__all__ = ["HEAD", "LAYOUT", "PREFIXES", "RENAMES", "Config", "Model"]

RENAMES = (
    ("post_attention_layernorm.", "attention_output_norm."),
    ("pre_feedforward_layernorm.", "mlp_norm."),
    ("post_feedforward_layernorm.", "mlp_output_norm."),
    *decoder.PROJECTIONS,
)

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Config(decoder.Config):
    """The part of config.json that shapes the decoder.

    Of each `sliding_window_pattern` layers the last sees the whole text. The others see what is less than
    `sliding_window` tokens away; before a token only, if `causal`.
    """

    query_pre_attn_scalar: float = 256.0
    rope_local_base_freq: float = 10_000.0
    sliding_window: int = 4096
    sliding_window_pattern: int = 6

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        expect(config, hidden_activation="gelu_pytorch_tanh", attention_bias=False, attn_logit_softcapping=None)
        theta, scaling = rope(config, 1_000_000.0, kind=FULL)
        local, local_scaling = rope(config, cls.rope_local_base_freq, kind=SLIDING, name="rope_local_base_freq")
        if local_scaling is not None:
            raise UnsupportedModelError(f"config.json scales RoPE in {SLIDING} layers, which mlx_embed does not.")
        window = config.get("sliding_window", cls.sliding_window)
        both = flag(config, "use_bidirectional_attention", default=False)
        one_sided = flag(config, "is_causal", default=True)
        if both and type(window) is int:
            window = window // 2 + 1  # config.json's number is the width of both sides together
        if not one_sided and type(window) is int:
            window += 1  # transformers' mask for this key counts the window's edge in
        causal = checked_direction(
            config,
            causal=one_sided and not both,
            obeyed=("is_causal", "is_decoder", "use_bidirectional_attention"),
        )
        derived = {
            "rope_theta": theta,
            "rope_scaling": scaling,
            "rope_local_base_freq": local,
            "sliding_window_pattern": _pattern(config),
            "causal": causal,
            "sliding_window": window,
        }
        return read(cls, config, derived)


def Model(config: Config) -> nn.Module:  # noqa: N802
    """The decoder: token ids to hidden states."""
    style = Style(
        activation("gelu_pytorch_tanh"),
        config.query_pre_attn_scalar**-0.5,
        head_norms=True,
        output_norms=True,
        offset=1.0,
        embedding_scale=config.hidden_size**0.5,
    )
    whole = sight(config, angles(config, config.rope_theta, config.rope_scaling))
    near = sight(config, angles(config, config.rope_local_base_freq, None), config.sliding_window - 1)
    layers = range(1, config.num_hidden_layers + 1)
    return decoder.Model(config, style, [near if i % config.sliding_window_pattern else whole for i in layers])


def _pattern(config: Mapping[str, Any]) -> Any:
    """Which layers, counted from 1, see the whole text: each that this divides."""
    types = config.get("layer_types")
    if types is None:
        return config.get("sliding_window_pattern", config.get("_sliding_window_pattern", 6))
    if not isinstance(types, list) or len(types) != config.get("num_hidden_layers"):
        raise UnsupportedModelError(f'config.json has "layer_types": {types!r}, which is not one for each layer.')
    every = types.index(FULL) + 1 if FULL in types else len(types) + 1
    if types != [SLIDING if (i + 1) % every else FULL for i in range(len(types))]:
        raise UnsupportedModelError(
            f'config.json has "layer_types": {types!r}; mlx_embed has a regular pattern of them.'
        )
    return every
