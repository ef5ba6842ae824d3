"""DeBERTa v2 and v3 (He et al., 2021), packed: scores of content by content, and of content by distance, both ways."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_embed.architectures import ops
from mlx_embed.architectures.config import LARGEST_SIZE, read_config
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import checked_direction, flag
from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.architectures.ops import Array
from mlx_embed.errors import CheckpointError, UnsupportedModelError

PREFIXES = ("deberta.",)
RENAMES = (
    ("embeddings.LayerNorm.", "embeddings.norm."),
    ("encoder.rel_embeddings.", "distances.rows."),
    ("encoder.LayerNorm.", "distances.norm."),
    ("encoder.layer.", "layers."),
    ("attention.self.query_proj.", "attention.q."),
    ("attention.self.key_proj.", "attention.k."),
    ("attention.self.value_proj.", "attention.v."),
    ("attention.self.pos_key_proj.", "attention.to_key."),
    ("attention.self.pos_query_proj.", "attention.to_query."),
    ("attention.output.dense.", "attention.out."),
    ("attention.output.LayerNorm.", "attention_norm."),
    ("intermediate.dense.", "up."),
    ("output.dense.", "down."),
    ("output.LayerNorm.", "output_norm."),
)
HEAD = (("pooler.dense", "GELU"), ("classifier", "Identity"))
LAYOUT: Layout = "packed"
BOTH = ("c2p", "p2c")


@dataclass(frozen=True)
class Config:
    """The part of config.json that shapes the encoder.

    Attributes:
        span: distances that are told apart to each side.
        farthest: the distance at which logarithmic buckets end; 0 where each distance up to `span` is its own.
        kinds: what a score has besides the product of two contents: "c2p", the query's by the distance, and "p2c",
            the key's.
        share_att_key: whether distances go through the projections of contents.
        normalize_distances: whether their embeddings are normalised.
        position_biased_input: whether positions are added to the words.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    span: int
    farthest: int
    kinds: tuple[str, ...]
    normalize_distances: bool
    position_biased_input: bool = True
    share_att_key: bool = False
    type_vocab_size: int = 0
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-7

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
        fixed = {"relative_attention": True, "conv_kernel_size": 0, "embedding_size": hidden, "pooler_hidden_size": hidden}
        if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
            fixed["attention_head_size"] = hidden // heads
        for name, value in fixed.items():
            if config.get(name, None if name != "relative_attention" else False) not in (value, None):
                raise UnsupportedModelError(f'config.json has "{name}": {config.get(name)!r}; mlx_embed has {value!r}.')
        checked_direction(config, causal=False)
        result = read_config(cls, {**config, **_distances(config)})
        ops.activation(result.hidden_act)
        return result

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that the model was made for."""
        return self.max_position_embeddings
