"""GTE v1.5 (Zhang et al., 2024), packed: NomicBERT's layers with biases and GeGLU; model_type "gte" or "new"."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import mlx.nn as nn

from mlx_embed.architectures import nomic_bert, ops
from mlx_embed.architectures.config import read_config, rope_theta
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import checked_direction
from mlx_embed.architectures.ops import Rope
from mlx_embed.errors import UnsupportedModelError

PREFIXES = ("gte.", "new.")
RENAMES = (
    ("embeddings.LayerNorm.", "embeddings.norm."),
    # Checkpoints have the authors' names, which come first, or transformers'.
    ("encoder.layer.", "layers."),
    ("attention.qkv_proj.", "attention.qkv."),
    ("attention.o_proj.", "attention.out."),
    ("attn_ln.", "attention_norm."),
    ("mlp_ln.", "output_norm."),
    ("mlp.up_gate_proj.", "mlp.up_gate."),
    ("self_attn.q_proj.", "attention.q."),
    ("self_attn.k_proj.", "attention.k."),
    ("self_attn.v_proj.", "attention.v."),
    ("self_attn.o_proj.", "attention.out."),
    ("post_attention_layernorm.", "attention_norm."),
    ("post_mlp_layernorm.", "output_norm."),
    ("mlp.up_proj.", "mlp.up."),
    ("mlp.gate_proj.", "mlp.gate."),
    ("mlp.down_proj.", "mlp.down."),
)
HEAD = nomic_bert.HEAD
LAYOUT: Layout = "packed"

# The authors' config.json offers choices; these are the ones implemented here.
_FIXED = {
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "logn_attention_scale": False,
    "pack_qkv": True,
}


@dataclass(frozen=True)
class Config(nomic_bert.RotaryConfig):
    """The part of config.json that shapes the encoder.

    RoPE's frequencies are theta^(-2i / head_dim) / slowdown.
    """

    type_vocab_size: int = 1
    hidden_act: str = "gelu"
    theta: float = 160_000.0
    slowdown: float = 1.0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json, transformers' or the authors'."""
        for name, value in _FIXED.items():
            if config.get(name, value) != value:
                raise UnsupportedModelError(f'config.json has "{name}": {config[name]!r}; mlx_embed has {value!r}.')
        theta = rope_theta(config, cls.theta)
        factor, slowdown = _ntk_factor(config.get("rope_scaling")), 1.0
        result = read_config(cls, {**config, "theta": theta * factor})
        if factor != 1:
            slowdown = factor ** (2 * result.num_attention_heads / result.hidden_size)
        checked_direction(config, causal=False)
        ops.activation(result.hidden_act)
        return replace(result, slowdown=slowdown)


class Model(nomic_bert.Encoder):
    """The encoder: token ids to hidden states."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.slowdown)

    def layer(self, config: Config, rope: Rope, index: int) -> nn.Module:
        """One of its layers."""
        return nomic_bert.Layer(config, rope, nomic_bert.GatedMLP(config, down_bias=True), bias=True)


def _ntk_factor(scaling: Any) -> float:
    """By how much the authors' fixed NTK scaling stretches positions; 1 where there is none."""
    if scaling is None:
        return 1.0
    if isinstance(scaling, dict) and scaling.get("type") == "ntk" and scaling.get("mixed_b") is None:
        factor = scaling.get("factor")
        if isinstance(factor, (int, float)) and 1 <= factor < 1e6:
            return float(factor)
    raise UnsupportedModelError(f'config.json has "rope_scaling": {scaling!r}; mlx_embed has type "ntk", unmixed.')
