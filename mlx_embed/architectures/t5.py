"""T5's encoder (Raffel et al., 2019), packed: sentence-t5, GTR and INSTRUCTOR.

Pre-norm layers without biases, whose scores are not scaled but have a bias by distance, the same in all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.nn as nn

from mlx_embed.architectures import ops
from mlx_embed.architectures.config import read_config
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import checked_direction, flag
from mlx_embed.architectures.mpnet import distance_buckets
from mlx_embed.architectures.norm import RMSNorm
from mlx_embed.architectures.ops import Array
from mlx_embed.errors import CheckpointError

PREFIXES = ("transformer.",)  # of one for the classification of tokens
RENAMES = (
    ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.", "relative_attention_bias."),
    ("encoder.block.", "layers."),
    ("shared.", "embed_tokens."),
    ("encoder.final_layer_norm.", "final_norm."),
    ("layer.0.SelfAttention.q.", "attention.q."),
    ("layer.0.SelfAttention.k.", "attention.k."),
    ("layer.0.SelfAttention.v.", "attention.v."),
    ("layer.0.SelfAttention.o.", "attention.out."),
    ("layer.0.layer_norm.", "attention_norm."),
    ("layer.1.layer_norm.", "mlp_norm."),
    ("layer.1.DenseReluDense.wi_0.", "gate."),
    ("layer.1.DenseReluDense.wi_1.", "up."),
    ("layer.1.DenseReluDense.wi.", "up."),
    ("layer.1.DenseReluDense.wo.", "down."),
)
# A file may have the embeddings by this name too, or alone, and an adapter changes them by it.
COPIES = {"encoder.embed_tokens.weight": "embed_tokens.weight"}
HEAD: tuple[tuple[str, str], ...] = ()
LAYOUT: Layout = "packed"

_NAMES = {
    "hidden_size": "d_model",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "d_ff",
    "head_dim": "d_kv",
}


@dataclass(frozen=True)
class Config:
    """The part of config.json that shapes the encoder.

    There are no positions to run out of: `max_tokens` is only what keeps memory within bounds.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    head_dim: int
    hidden_act: str = "relu"
    gated: bool = False
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    type_vocab_size: ClassVar[int] = 0
    max_tokens: ClassVar[int] = 1 << 15

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        named = config.get("feed_forward_proj", "relu")
        gate, _, act = str(named).rpartition("-")
        if not isinstance(named, str) or gate not in ("", "gated"):
            raise CheckpointError(
                f'config.json has "feed_forward_proj": {named!r}, where "gated-gelu" or such is needed.'
            )
        # What T5 calls so is the approximation by tanh, if it is gated.
        act = "gelu_new" if named == "gated-gelu" else act
        # Where transformers has written its parts too, it obeys these.
        if config.get("dense_act_fn") is not None:
            act = config["dense_act_fn"]
        gated = flag(config, "is_gated_act", default=gate == "gated")
        checked_direction(config, causal=False)
        result = read_config(cls, {**config, "hidden_act": act, "gated": gated}, _NAMES)
        if result.relative_attention_num_buckets < 4 or result.relative_attention_max_distance < result.exact * 2:
            raise CheckpointError(
                f"config.json has {result.relative_attention_num_buckets} buckets of distances up to "
                f"{result.relative_attention_max_distance}, which cannot be."
            )
        ops.activation(result.hidden_act)
        return result

    @property
    def exact(self) -> int:
        """The distances to each side that have a bucket of their own."""
        return self.relative_attention_num_buckets // 4


class Attention(nn.Module):
    """Multi-head self-attention, without scale, with a bias by distance."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        inner = config.num_attention_heads * config.head_dim
        self.num_heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * inner, bias=False)
        self.out = nn.Linear(inner, config.hidden_size, bias=False)

    def __call__(self, x: Array, cu_seqlens: Array, max_seqlen: int, bias: Array) -> Array:
        """[T, hidden] -> [T, heads * head_dim], before the output projection."""
        return ops.attention(ops.linear(x, self.qkv), cu_seqlens, self.num_heads, 1.0, bias, max_seqlen)


class Layer(nn.Module):
    """Attention, then a feed-forward, gated or not; each has its input normalised, and what was before that added."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_epsilon
        self.attention_norm = RMSNorm(hidden, eps)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(hidden, eps)
        self.up = self.up_gate = None
        if config.gated:
            self.up_gate = nn.Linear(hidden, 2 * inner, bias=False)
        else:
            self.up = nn.Linear(hidden, inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)
        self.activation = ops.activation(config.hidden_act)

    def __call__(self, x: Array, cu_seqlens: Array, max_seqlen: int, bias: Array) -> Array:
        """[T, hidden] -> [T, hidden]."""
        attended = self.attention(ops.rms_norm(x, self.attention_norm), cu_seqlens, max_seqlen, bias)
        x = ops.add_linear(attended, self.attention.out, x)
        normed = ops.rms_norm(x, self.mlp_norm)
        if self.up_gate is not None:
            return ops.gated(normed, self.up_gate, self.down, self.activation, "second", x)
        return ops.add_linear(ops.linear(normed, self.up, self.activation), self.down, x)


class Model(nn.Module):
    """The encoder: token ids to hidden states."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_attention_heads)
        self.layers = [Layer(config) for _ in range(config.num_hidden_layers)]
        self.final_norm = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.buckets = (config.relative_attention_num_buckets, config.relative_attention_max_distance)

    def __call__(self, input_ids: Array, cu_seqlens: Array, max_seqlen: int) -> Array:
        """Token ids [T] of a packed batch to hidden states [T, hidden]."""
        x = ops.embed(self.embed_tokens, input_ids)
        bias = ops.distance_bias(self.relative_attention_bias, distance_buckets(max_seqlen, *self.buckets))
        for layer in self.layers:
            x = layer(x, cu_seqlens, max_seqlen, bias)
        return ops.rms_norm(x, self.final_norm)
