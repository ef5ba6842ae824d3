"""DistilBERT (Sanh et al., 2019), packed: half of BERT's layers, no token types, and names of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.nn as nn

from mlx_embed.architectures import ops
from mlx_embed.architectures.bert import Layer
from mlx_embed.architectures.config import read_config
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import checked_direction
from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.architectures.ops import Array

PREFIXES = ("distilbert.",)
RENAMES = (
    ("LayerNorm.gamma", "LayerNorm.weight"),
    ("LayerNorm.beta", "LayerNorm.bias"),
    ("embeddings.LayerNorm", "embeddings.norm"),
    ("transformer.layer.", "layers."),
    ("attention.q_lin.", "attention.q."),
    ("attention.k_lin.", "attention.k."),
    ("attention.v_lin.", "attention.v."),
    ("attention.out_lin.", "attention.out."),
    ("sa_layer_norm.", "attention_norm."),
    ("ffn.lin1.", "up."),
    ("ffn.lin2.", "down."),
    ("output_layer_norm.", "output_norm."),
)
HEAD = (("pre_classifier", "ReLU"), ("classifier", "Identity"))
LAYOUT: Layout = "packed"


@dataclass(frozen=True)
class Config:
    """The part of config.json that shapes the encoder, under BERT's names."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    hidden_act: str = "gelu"
    # Not in config.json.
    layer_norm_eps: ClassVar[float] = 1e-12
    type_vocab_size: ClassVar[int] = 0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        names = {
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
        }
        result = read_config(cls, config, names)
        checked_direction(config, causal=False)
        ops.activation(result.hidden_act)
        return result

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that the position embeddings allow."""
        return self.max_position_embeddings


class Embeddings(nn.Module):
    """Word + position, normalised; sinusoidal positions are weights too."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, input_ids: Array, cu_seqlens: Array) -> Array:
        """[T] -> [T, hidden]."""
        positions = ops.position_ids(cu_seqlens, input_ids.shape[0])
        return ops.embedding_norm([(self.word_embeddings, input_ids), (self.position_embeddings, positions)], self.norm)


class Model(nn.Module):
    """The encoder: token ids to hidden states."""

    takes_rows = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = ops.PostNormLayers(Layer(config) for _ in range(config.num_hidden_layers))

    def __call__(self, input_ids: Array, cu_seqlens: Array, max_seqlen: int, rows: Array | None = None) -> Array:
        """Token ids [T] of a packed batch to hidden states [T, hidden], or [n, hidden] of the tokens `rows`."""
        x = self.embeddings(input_ids, cu_seqlens)
        return ops.encoder_layers(self.layers, x, cu_seqlens, max_seqlen, rows=rows)
