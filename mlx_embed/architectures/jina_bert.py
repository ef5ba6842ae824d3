"""Jina's BERT (Günther et al., 2023), packed: ALiBi in the place of positions, and a gated feed-forward.

Its folders (jina-embeddings-v2) have the model_type "bert", and "alibi" as position_embedding_type. The models for code
normalise query and key besides, and once more behind the attention; their config.json does not say so.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import mlx.nn as nn

from custom_kernels.ops.activate import Gate
from mlx_embed.architectures import bert, nomic_bert, ops
from mlx_embed.architectures.config import read_config
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import checked_direction
from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.architectures.ops import Array
from mlx_embed.errors import UnsupportedModelError

PREFIXES = bert.PREFIXES
RENAMES = (
    ("embeddings.LayerNorm.", "embeddings.norm."),
    ("attention.self.query.", "attention.q."),
    ("attention.self.key.", "attention.k."),
    ("attention.self.value.", "attention.v."),
    ("attention.self.layer_norm_q.", "attention.q_norm."),
    ("attention.self.layer_norm_k.", "attention.k_norm."),
    ("attention.output.dense.", "attention.out."),
    ("attention.output.LayerNorm.", "attention_norm."),
    ("mlp.gated_layers.", "up_gate."),
    ("mlp.wo.", "down."),
    ("mlp.layernorm.", "output_norm."),
    # The names of the models for code.
    ("mlp.up_gated_layer.", "up_gate."),
    ("mlp.down_layer.", "down."),
    ("layer_norm_1.", "residual_norm."),
    ("layer_norm_2.", "output_norm."),
    # Last, since errors turn names back from the last pair on, and "gated_layers." ends like this.
    ("encoder.layer.", "layers."),
)
HEAD = bert.HEAD
LAYOUT: Layout = "packed"

_ACTIVATIONS = {"geglu": "gelu", "reglu": "relu"}


@dataclass(frozen=True)
class Config:
    """The part of config.json that shapes the encoder."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    feed_forward_type: str = "geglu"
    layer_norm_eps: float = 1e-12
    normed: bool = False

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        result = read_config(cls, {**config, "normed": False})
        if result.feed_forward_type not in _ACTIVATIONS:
            raise UnsupportedModelError(
                f'config.json has "feed_forward_type": {result.feed_forward_type!r}; mlx_embed has '
                f"{', '.join(_ACTIVATIONS)}."
            )
        checked_direction(config, causal=False)
        return result

    def for_tensors(self, names: Collection[str]) -> "Config":
        """The same, of a model for code if the tensors are one's."""
        return replace(self, normed="layers.0.residual_norm.weight" in names)

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that the model was made for."""
        return self.max_position_embeddings


class Attention(nn.Module):
    """Multi-head self-attention; query and key may be normalised, each over all heads."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self.num_heads = config.num_attention_heads
        self.scale = (hidden // self.num_heads) ** -0.5
        self.qkv = nn.Linear(hidden, 3 * hidden)
        if config.normed:
            self.q_norm = LayerNorm(hidden, eps)
            self.k_norm = LayerNorm(hidden, eps)
        self.out = nn.Linear(hidden, hidden)
        self.normed = config.normed

    def __call__(self, x: Array, cu_seqlens: Array, max_seqlen: int, bias: Array) -> Array:
        """[T, hidden] -> [T, hidden], before the output projection."""
        qkv = ops.linear(x, self.qkv)
        if self.normed:
            xp = ops.namespace(qkv)
            q, k, v = xp.split(qkv, 3, axis=1)
            qkv = xp.concatenate([ops.layer_norm(q, self.q_norm), ops.layer_norm(k, self.k_norm), v], axis=1)
        return ops.attention(qkv, cu_seqlens, self.num_heads, self.scale, bias, max_seqlen)


class Layer(nn.Module):
    """Attention, then a gated feed-forward; each is added to its input and normalised.

    In a model for code what comes of the attention, so normalised, is added to the input and normalised again.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self.attention = Attention(config)
        self.attention_norm = LayerNorm(hidden, eps)
        if config.normed:
            self.residual_norm = LayerNorm(hidden, eps)
        self.up_gate = nn.Linear(hidden, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, hidden)
        self.output_norm = LayerNorm(hidden, eps)
        self.activation = ops.activation(_ACTIVATIONS[config.feed_forward_type])
        self.normed = config.normed

    def __call__(self, x: Array, cu_seqlens: Array, max_seqlen: int, bias: Array, rows: Array | None = None) -> Array:
        """[T, hidden] -> [T, hidden], or [n, hidden] of the tokens `rows`."""
        attended = self.attention(x, cu_seqlens, max_seqlen, bias)
        attended, x = ops.at_rows(rows, attended, x)
        y = ops.output_norm(attended, self.attention.out, x, self.attention_norm)
        if self.normed:
            y = ops.layer_norm(x + y, self.residual_norm)
        gate: Gate = "second" if self.normed else "first"
        return ops.gated_feed_forward(y, self.up_gate, self.down, self.activation, gate, self.output_norm)


class Model(nn.Module):
    """The encoder: token ids to hidden states."""

    takes_rows = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = nomic_bert.Embeddings(config)
        self.layers = [Layer(config) for _ in range(config.num_hidden_layers)]
        self.num_heads = config.num_attention_heads

    def __call__(
        self,
        input_ids: Array,
        cu_seqlens: Array,
        max_seqlen: int,
        token_type_ids: Array | None = None,
        rows: Array | None = None,
    ) -> Array:
        """Token ids [T] of a packed batch to hidden states [T, hidden], or [n, hidden] of the tokens `rows`."""
        x = self.embeddings(input_ids, token_type_ids)
        bias = ops.alibi(x, self.num_heads, max_seqlen)
        for layer, wanted in ops.with_rows(self.layers, rows):
            x = layer(x, cu_seqlens, max_seqlen, bias, wanted)
        return x
