"""MPNet (Song et al., 2020), packed: BERT's layers with T5's relative position bias shared by all of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import mlx.nn as nn
import numpy as np

from mlx_embed.architectures import ops
from mlx_embed.architectures.bert import Layer
from mlx_embed.architectures.config import read_config
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import checked_direction
from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.architectures.ops import Array
from mlx_embed.errors import CheckpointError

PREFIXES = ("mpnet.",)
RENAMES = (
    ("LayerNorm.gamma", "LayerNorm.weight"),
    ("LayerNorm.beta", "LayerNorm.bias"),
    ("embeddings.LayerNorm", "embeddings.norm"),
    ("encoder.relative_attention_bias", "relative_attention_bias"),
    ("encoder.layer.", "layers."),
    ("attention.attn.q.", "attention.q."),
    ("attention.attn.k.", "attention.k."),
    ("attention.attn.v.", "attention.v."),
    ("attention.attn.o.", "attention.out."),
    ("attention.LayerNorm.", "attention_norm."),
    ("intermediate.dense.", "up."),
    ("output.dense.", "down."),
    ("output.LayerNorm.", "output_norm."),
)
HEAD = (("classifier.dense", "Tanh"), ("classifier.out_proj", "Identity"))
LAYOUT: Layout = "packed"
MAX_DISTANCE = 128
# MPNet's own code has these numbers; what config.json calls pad_token_id does not count, and of
# relative_attention_num_buckets it is only how many rows the table has.
PAD_TOKEN_ID = 1
BUCKETS = 32


@dataclass(frozen=True)
class Config:
    """The part of config.json that shapes the encoder."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    relative_attention_num_buckets: int = 32
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    type_vocab_size: ClassVar[int] = 0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        result = read_config(cls, config)
        if result.relative_attention_num_buckets < BUCKETS:
            raise CheckpointError(
                f'config.json has "relative_attention_num_buckets": {result.relative_attention_num_buckets}; MPNet has '
                f"{BUCKETS} buckets of distances, each with a row of its table."
            )
        checked_direction(config, causal=False)
        ops.activation(result.hidden_act)
        return result

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens: the position rows less those up to the pad token's."""
        return self.max_position_embeddings - PAD_TOKEN_ID - 1


class Embeddings(nn.Module):
    """Word + position, normalised; MPNet has no token types."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, input_ids: Array, cu_seqlens: Array) -> Array:
        """[T] -> [T, hidden]."""
        positions = ops.offset_position_ids(input_ids, cu_seqlens, PAD_TOKEN_ID)
        return ops.embedding_norm([(self.word_embeddings, input_ids), (self.position_embeddings, positions)], self.norm)


class Model(nn.Module):
    """The encoder: token ids to hidden states."""

    takes_rows = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_attention_heads)
        self.layers = ops.PostNormLayers(Layer(config) for _ in range(config.num_hidden_layers))

    def __call__(self, input_ids: Array, cu_seqlens: Array, max_seqlen: int, rows: Array | None = None) -> Array:
        """Token ids [T] of a packed batch to hidden states [T, hidden], or [n, hidden] of the tokens `rows`."""
        x = self.embeddings(input_ids, cu_seqlens)
        bias = ops.distance_bias(self.relative_attention_bias, distance_buckets(max_seqlen, BUCKETS))
        return ops.encoder_layers(self.layers, x, cu_seqlens, max_seqlen, bias, rows)


@cache
def distance_buckets(
    length: int, num_buckets: int, max_distance: int = MAX_DISTANCE
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """T5's bidirectional buckets for the distances -(length - 1) .. length - 1: int32 [2 * length - 1].

    Half of the buckets serve keys after the query; of each half, half are exact and the rest grow logarithmically
    to `max_distance`. Computed in float32, as the model was trained with it.
    """
    distance = np.arange(-(length - 1), length, dtype=np.int32)
    half = num_buckets // 2
    exact = half // 2
    size = np.abs(distance)
    ratio = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        math.log(max_distance / exact)
    )
    large = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int32), half - 1)
    return np.where(distance > 0, half, 0).astype(np.int32) + np.where(size < exact, size, large).astype(np.int32)
