"""BERT (Devlin et al., 2018), packed: E5, MiniLM, BGE, GTE and other post-norm encoders of model_type "bert"."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.nn as nn

from mlx_embed.architectures import ops
from mlx_embed.architectures.config import read_config
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import bert_is_causal, flag
from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.architectures.ops import Array
from mlx_embed.errors import UnsupportedModelError

PREFIXES = ("bert.",)
RENAMES = (
    ("LayerNorm.gamma", "LayerNorm.weight"),
    ("LayerNorm.beta", "LayerNorm.bias"),
    ("embeddings.LayerNorm", "embeddings.norm"),
    ("encoder.layer.", "layers."),
    ("attention.self.query.", "attention.q."),
    ("attention.self.key.", "attention.k."),
    ("attention.self.value.", "attention.v."),
    ("attention.output.dense.", "attention.out."),
    ("attention.output.LayerNorm.", "attention_norm."),
    ("intermediate.dense.", "up."),
    ("output.dense.", "down."),
    ("output.LayerNorm.", "output_norm."),
)
# The layers of a sequence classifier behind the pooled token, and torch's names of their activations.
HEAD = (("pooler.dense", "Tanh"), ("classifier", "Identity"))
LAYOUT: Layout = "packed"


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
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    causal: bool = False

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        result = read_config(cls, {**config, "causal": bert_is_causal(config)})
        if flag(config, "add_cross_attention", default=False):
            raise UnsupportedModelError(
                'config.json has "add_cross_attention": true; mlx_embed has no cross-attention.'
            )
        check_positions(config)
        ops.activation(result.hidden_act)
        return result

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that the position embeddings allow."""
        return self.max_position_embeddings


def check_positions(config: Mapping[str, Any]) -> None:
    """UnsupportedModelError where positions are not looked up in a table."""
    kind = config.get("position_embedding_type")
    if kind not in ("absolute", None):
        raise UnsupportedModelError(
            f'config.json has "position_embedding_type": {kind!r}; mlx_embed implements "absolute" for '
            f"{config.get('model_type')}."
        )


class EmbeddingsConfig(Protocol):
    """The part of a Config that shapes embeddings, here and in other encoders."""

    @property
    def vocab_size(self) -> int:
        """Rows of the words' table."""

    @property
    def hidden_size(self) -> int:
        """Dimensions of a hidden state."""

    @property
    def max_position_embeddings(self) -> int:
        """Rows of the positions' table."""

    @property
    def type_vocab_size(self) -> int:
        """Rows of the token types' table."""

    @property
    def layer_norm_eps(self) -> float:
        """What LayerNorm adds to the variance."""


class Embeddings(nn.Module):
    """Word + position + token type, normalised; of `size` dimensions, hidden_size where there is none."""

    def __init__(self, config: EmbeddingsConfig, size: int | None = None) -> None:
        super().__init__()
        size = size or config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.norm = LayerNorm(size, config.layer_norm_eps)

    def __call__(self, input_ids: Array, cu_seqlens: Array, token_type_ids: Array | None = None) -> Array:
        """[T] -> [T, size]; every token is of type 0 unless said otherwise."""
        lookups = [
            (self.word_embeddings, input_ids),
            (self.position_embeddings, self.positions(input_ids, cu_seqlens)),
            (self.token_type_embeddings, ops.zeros_like(input_ids) if token_type_ids is None else token_type_ids),
        ]
        return ops.embedding_norm(lookups, self.norm)

    def positions(self, input_ids: Array, cu_seqlens: Array) -> Array:
        """Each token's row of position_embeddings: [T]."""
        return ops.position_ids(cu_seqlens, input_ids.shape[0])


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for query, key and value."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (hidden_size // num_heads) ** -0.5
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def __call__(self, x: Array, cu_seqlens: Array, max_seqlen: int, bias: Array | None) -> Array:
        """[T, hidden] -> [T, hidden], before the output projection."""
        return ops.attention(ops.linear(x, self.qkv), cu_seqlens, self.num_heads, self.scale, bias, max_seqlen)


class LayerConfig(Protocol):
    """The part of a Config that shapes a layer, here and in other post-norm encoders."""

    @property
    def hidden_size(self) -> int:
        """Dimensions of a hidden state."""

    @property
    def num_attention_heads(self) -> int:
        """Heads, which share those dimensions."""

    @property
    def intermediate_size(self) -> int:
        """Dimensions within the feed-forward."""

    @property
    def hidden_act(self) -> str:
        """Its activation, as config.json calls it."""

    @property
    def layer_norm_eps(self) -> float:
        """What LayerNorm adds to the variance."""


class Layer(nn.Module):
    """Attention, then a two-layer feed-forward; each is added to its input and normalised."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self.attention = Attention(hidden, config.num_attention_heads)
        self.attention_norm = LayerNorm(hidden, eps)
        self.up = nn.Linear(hidden, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, hidden)
        self.output_norm = LayerNorm(hidden, eps)
        self.activation = ops.activation(config.hidden_act)

    def __call__(
        self, x: Array, cu_seqlens: Array, max_seqlen: int, bias: Array | None = None, rows: Array | None = None
    ) -> Array:
        """[T, hidden] -> [T, hidden], or [n, hidden] of the tokens `rows`."""
        attended = self.attention(x, cu_seqlens, max_seqlen, bias)
        attended, x = ops.at_rows(rows, attended, x)
        x = ops.output_norm(attended, self.attention.out, x, self.attention_norm)
        return ops.feed_forward(x, self.up, self.down, self.activation, self.output_norm)


class Model(nn.Module):
    """The encoder: token ids to hidden states."""

    takes_rows = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.causal_heads = config.num_attention_heads if config.causal else None
        self.layers = ops.PostNormLayers(Layer(config) for _ in range(config.num_hidden_layers))

    def __call__(
        self,
        input_ids: Array,
        cu_seqlens: Array,
        max_seqlen: int,
        token_type_ids: Array | None = None,
        rows: Array | None = None,
    ) -> Array:
        """Token ids [T] of a packed batch to hidden states [T, hidden], or [n, hidden] of the tokens `rows`."""
        x = self.embed(input_ids, cu_seqlens, token_type_ids)
        bias = None if self.causal_heads is None else ops.causal_bias(x, self.causal_heads, max_seqlen)
        return ops.encoder_layers(self.layers, x, cu_seqlens, max_seqlen, bias, rows)

    def embed(self, input_ids: Array, cu_seqlens: Array, token_type_ids: Array | None) -> Array:
        """What the first layer reads: [T, hidden]."""
        return self.embeddings(input_ids, cu_seqlens, token_type_ids)
