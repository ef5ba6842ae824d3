"""ALBERT (Lan et al., 2019), packed: BERT with few weights, which its layers share, and narrow embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn

from mlx_embed.architectures import bert, ops
from mlx_embed.architectures.config import read_config
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import checked_direction
from mlx_embed.architectures.ops import Array

PREFIXES = ("albert.",)
RENAMES = (
    ("embeddings.LayerNorm.", "embeddings.norm."),
    ("encoder.embedding_hidden_mapping_in.", "embeddings_project."),
    (".albert_layers.", ".inner."),
    ("encoder.albert_layer_groups.", "layers."),
    ("full_layer_layer_norm.", "output_norm."),
    ("attention.LayerNorm.", "attention_norm."),
    ("attention.query.", "attention.q."),
    ("attention.key.", "attention.k."),
    ("attention.value.", "attention.v."),
    ("attention.dense.", "attention.out."),
    ("ffn_output.", "down."),
    ("ffn.", "up."),
)
HEAD = (("pooler", "Tanh"), ("classifier", "Identity"))
LAYOUT: Layout = "packed"


@dataclass(frozen=True)
class Config:
    """The part of config.json that shapes the encoder.

    `num_hidden_layers` groups of `inner_group_num` layers have weights of their own; config.json calls them
    num_hidden_groups. Each is run so often that there are `depth` runs of a group altogether.
    """

    vocab_size: int
    hidden_size: int
    depth: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    num_hidden_layers: int = 1
    inner_group_num: int = 1
    embedding_size: int = 128
    type_vocab_size: int = 2
    hidden_act: str = "gelu_new"
    layer_norm_eps: float = 1e-12

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        result = read_config(cls, config, {"depth": "num_hidden_layers", "num_hidden_layers": "num_hidden_groups"})
        checked_direction(config, causal=False)
        bert.check_positions(config)
        ops.activation(result.hidden_act)
        return result

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that the position embeddings allow."""
        return self.max_position_embeddings


class Group(nn.Module):
    """Layers that are run one after the other, and then perhaps again."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.inner = ops.PostNormLayers(bert.Layer(config) for _ in range(config.inner_group_num))


class Model(nn.Module):
    """The encoder: token ids to hidden states."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = bert.Embeddings(config, config.embedding_size)
        self.embeddings_project = nn.Linear(config.embedding_size, config.hidden_size)
        self.layers = [Group(config) for _ in range(config.num_hidden_layers)]
        self.depth = config.depth

    def __call__(
        self, input_ids: Array, cu_seqlens: Array, max_seqlen: int, token_type_ids: Array | None = None
    ) -> Array:
        """Token ids [T] of a packed batch to hidden states [T, hidden]."""
        x = ops.linear(self.embeddings(input_ids, cu_seqlens, token_type_ids), self.embeddings_project)
        for run in range(self.depth):
            group = self.layers[run * len(self.layers) // self.depth]
            x = ops.encoder_layers(group.inner, x, cu_seqlens, max_seqlen)
        return x
