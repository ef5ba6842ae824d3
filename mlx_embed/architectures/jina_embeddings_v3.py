"""Jina's XLM-R with rotary positions (Sturua et al., 2024), packed: jina-embeddings-v3, transformers' or the authors'.

The authors' config.json says model_type "xlm-roberta" and position_embedding_type "rotary". What the model has beside
that, a LoRA for each task, is merged where weights are read: see `checkpoint.tasks`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn

from mlx_embed.architectures import nomic_bert, ops, roberta
from mlx_embed.architectures.config import read_config, rope_theta
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import checked_direction
from mlx_embed.architectures.ops import Rope

PREFIXES = roberta.PREFIXES
RENAMES = (
    *roberta.JINA_RENAMES,
    ("embeddings.LayerNorm.", "embeddings.norm."),
    ("self_attn.q_proj.", "attention.q."),
    ("self_attn.k_proj.", "attention.k."),
    ("self_attn.v_proj.", "attention.v."),
    ("self_attn.o_proj.", "attention.out."),
    ("post_attention_layernorm.", "attention_norm."),
    ("post_mlp_layernorm.", "output_norm."),
    ("mlp.fc1.", "mlp.up."),
    ("mlp.fc2.", "mlp.down."),
)
HEAD = roberta.HEAD
LAYOUT: Layout = "packed"


@dataclass(frozen=True)
class Config(nomic_bert.RotaryConfig):
    """The part of config.json that shapes the encoder."""

    type_vocab_size: int = 1
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    theta: float = 20_000.0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json, transformers' or the authors'."""
        name = "rotary_emb_base" if "rotary_emb_base" in config else "rope_theta"
        theta = rope_theta(config, cls.theta, name=name)
        result = read_config(cls, {**config, "theta": theta})
        checked_direction(config, causal=False)
        ops.activation(result.hidden_act)
        return result


class Model(nomic_bert.Encoder):
    """The encoder: token ids to hidden states."""

    def layer(self, config: Config, rope: Rope, index: int) -> nn.Module:
        """One of its layers."""
        return nomic_bert.Layer(config, rope, nomic_bert.MLP(config), bias=True)
