"""ModernBERT (Warner et al., 2024), packed: pre-norm, rotary positions, GeGLU, and layers that see only nearby."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.nn as nn

from mlx_embed.architectures import ops
from mlx_embed.architectures.config import read_config, rope_theta
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import checked_direction
from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.architectures.ops import Array, Rope
from mlx_embed.errors import CheckpointError

PREFIXES = ("model.",)
RENAMES = (
    ("embeddings.tok_embeddings.", "embeddings.word_embeddings."),
    ("attn.Wqkv.", "attention.qkv."),
    ("attn.Wo.", "attention.out."),
    ("attn_norm.", "attention_norm."),
    ("mlp.Wi.", "up."),
    ("mlp.Wo.", "down."),
)
HEAD = (("head.dense", "GELU"), ("head.norm", "LayerNorm"), ("classifier", "Identity"))
LAYOUT: Layout = "packed"
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Config:
    """The part of config.json that shapes the encoder.

    `layer_types` says of each layer whether it sees the whole text or its neighbourhood.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    hidden_activation: str = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    local_attention: int = 128
    layer_types: tuple[str, ...] = ()
    full_theta: float = 160_000.0
    sliding_theta: float = 10_000.0
    type_vocab_size: ClassVar[int] = 0
    causal: ClassVar[bool] = False

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        layers = config.get("num_hidden_layers")
        every = config.get("global_attn_every_n_layers", 3)
        types = config.get("layer_types")
        if types is None and isinstance(layers, int) and isinstance(every, int) and every > 0:
            types = [SLIDING if i % every else FULL for i in range(min(layers, 1000))]
        if not isinstance(types, list) or not all(kind in (FULL, SLIDING) for kind in types):
            raise CheckpointError(f'config.json has "layer_types": {types!r}, where each is {FULL!r} or {SLIDING!r}.')
        derived: dict[str, Any] = {
            "layer_types": tuple(types),
            "full_theta": rope_theta(config, cls.full_theta, kind=FULL, name="global_rope_theta"),
            "sliding_theta": rope_theta(config, cls.sliding_theta, kind=SLIDING, name="local_rope_theta"),
        }
        half = config.get("sliding_window")
        if half is not None:  # which transformers obeys instead, where it has written both
            if type(half) is not int:
                raise CheckpointError(
                    f'config.json has "sliding_window": {half!r}, where a number of tokens is needed.'
                )
            derived["local_attention"] = 2 * half
        result = read_config(cls, {**config, **derived})
        if len(types) != result.num_hidden_layers:
            raise CheckpointError(f"config.json has {len(types)} layer_types for {result.num_hidden_layers} layers.")
        checked_direction(config, causal=cls.causal)
        ops.activation(result.hidden_activation)
        return result

    @property
    def near(self) -> int:
        """How many tokens away a token may be that one of a sliding layer sees."""
        # The number is of both sides together. The decoder's half of it counts the token itself.
        return self.local_attention // 2 - self.causal

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that the model was made for."""
        return self.max_position_embeddings


class Embeddings(nn.Module):
    """Word embeddings, normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps, bias=config.norm_bias)

    def __call__(self, input_ids: Array) -> Array:
        """[T] -> [T, hidden]."""
        return ops.embedding_norm([(self.word_embeddings, input_ids)], self.norm)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions, over the whole text or `window` tokens to either side.

    Of a causal model it is those before a token alone.
    """

    def __init__(self, config: Config, rope: Rope, window: int | None) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.scale = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.attention_bias)
        self.out = nn.Linear(config.hidden_size, config.hidden_size, bias=config.attention_bias)
        self.rope = rope
        self.window = window
        self.causal = config.causal

    def __call__(self, x: Array, positions: Array, cu_seqlens: Array, max_seqlen: int) -> Array:
        """[T, hidden] -> [T, hidden], before the output projection."""
        return ops.attention(
            ops.linear(x, self.qkv),
            cu_seqlens,
            self.num_heads,
            self.scale,
            None,
            max_seqlen,
            self.window,
            causal=self.causal,
            rotation=ops.rotation(positions, self.rope, max_seqlen),
        )


class Layer(nn.Module):
    """Attention, then a gated feed-forward; each has its input normalised, and what was before that added."""

    def __init__(self, config: Config, rope: Rope, window: int | None, *, first: bool) -> None:
        super().__init__()
        hidden, eps, bias = config.hidden_size, config.norm_eps, config.norm_bias
        # The first layer's input comes from a norm already.
        self.attention_norm = None if first else LayerNorm(hidden, eps, bias=bias)
        self.attention = Attention(config, rope, window)
        self.mlp_norm = LayerNorm(hidden, eps, bias=bias)
        self.up = nn.Linear(hidden, 2 * config.intermediate_size, bias=config.mlp_bias)
        self.down = nn.Linear(config.intermediate_size, hidden, bias=config.mlp_bias)
        self.activation = ops.activation(config.hidden_activation)

    def __call__(
        self, x: Array, positions: Array, cu_seqlens: Array, max_seqlen: int, rows: Array | None = None
    ) -> Array:
        """[T, hidden] -> [T, hidden], or [n, hidden] of the tokens `rows`."""
        normed = x if self.attention_norm is None else ops.layer_norm(x, self.attention_norm)
        attended = self.attention(normed, positions, cu_seqlens, max_seqlen)
        attended, x = ops.at_rows(rows, attended, x)
        x = ops.add_linear(attended, self.attention.out, x)
        return ops.normed_feed_forward(x, self.mlp_norm, self.up, self.down, self.activation, "first")


class Model(nn.Module):
    """The encoder: token ids to hidden states."""

    takes_rows = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        head_dim = config.hidden_size // config.num_attention_heads
        full, sliding = (
            Rope(head_dim, theta, config.max_position_embeddings) for theta in (config.full_theta, config.sliding_theta)
        )
        self.layers = []
        for i, kind in enumerate(config.layer_types):
            rope, window = (full, None) if kind == FULL else (sliding, config.near)
            self.layers.append(Layer(config, rope, window, first=i == 0))
        self.final_norm = LayerNorm(config.hidden_size, config.norm_eps, bias=config.norm_bias)

    def __call__(self, input_ids: Array, cu_seqlens: Array, max_seqlen: int, rows: Array | None = None) -> Array:
        """Token ids [T] of a packed batch to hidden states [T, hidden], or [n, hidden] of the tokens `rows`."""
        x = self.embeddings(input_ids)
        positions = ops.position_ids(cu_seqlens, input_ids.shape[0])
        for layer, wanted in ops.with_rows(self.layers, rows):
            x = layer(x, positions, cu_seqlens, max_seqlen, wanted)
        return ops.layer_norm(x, self.final_norm)
