"""NomicBERT (Nussbaum et al., 2024), packed: BERT with rotary positions and SwiGLU, without biases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn

from mlx_embed.architectures import ops
from mlx_embed.architectures.config import read_config, rope_theta
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import checked_direction
from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.architectures.ops import Array, Rope
from mlx_embed.errors import UnsupportedModelError

PREFIXES = ("nomic_bert.", "bert.")
RENAMES = (
    # Checkpoints have the authors' names, which come first, or transformers'.
    ("emb_ln.", "embeddings.norm."),
    ("embeddings.LayerNorm.", "embeddings.norm."),
    ("encoder.layers.", "layers."),
    ("attn.Wqkv.", "attention.qkv."),
    ("attn.out_proj.", "attention.out."),
    ("self_attn.q_proj.", "attention.q."),
    ("self_attn.k_proj.", "attention.k."),
    ("self_attn.v_proj.", "attention.v."),
    ("self_attn.o_proj.", "attention.out."),
    ("norm1.", "attention_norm."),
    ("norm2.", "output_norm."),
    ("post_attention_layernorm.", "attention_norm."),
    ("post_mlp_layernorm.", "output_norm."),
    ("mlp.fc11.", "mlp.up."),
    ("mlp.fc12.", "mlp.gate."),
    ("mlp.fc2.", "mlp.down."),
    ("mlp.up_proj.", "mlp.up."),
    ("mlp.gate_proj.", "mlp.gate."),
    ("mlp.down_proj.", "mlp.down."),
)
HEAD = (("pooler.dense", "Tanh"), ("classifier", "Identity"))
LAYOUT: Layout = "packed"

# The authors' config.json has GPT-2's keys, and offers choices, of which those in _FIXED are implemented here.
_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
    "layer_norm_eps": "layer_norm_epsilon",
}
_FIXED = {
    "activation_function": "swiglu",
    "prenorm": False,
    "parallel_block": False,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "use_rms_norm": False,
    "moe_every_n_layers": 0,
}


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
    hidden_act: str = "silu"
    layer_norm_eps: float = 1e-12
    theta: float = 1000.0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json, transformers' or the authors'."""
        authors = "n_embd" in config
        for name, value in _FIXED.items():
            if authors and config.get(name, value) not in (value, None):
                raise UnsupportedModelError(f'config.json has "{name}": {config[name]!r}; mlx_embed has {value!r}.')
        name = "rotary_emb_base" if authors else "rope_theta"
        theta = rope_theta(config, cls.theta, name=name)
        result = read_config(cls, {**config, "theta": theta}, _NAMES if authors else {})
        checked_direction(config, causal=False)
        ops.activation(result.hidden_act)
        return result

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that the model was made for."""
        return self.max_position_embeddings


class Embeddings(nn.Module):
    """Word + token type, normalised; positions come in with the attention."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = (
            nn.Embedding(config.type_vocab_size, config.hidden_size) if config.type_vocab_size else None
        )
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, input_ids: Array, token_type_ids: Array | None = None) -> Array:
        """[T] -> [T, hidden]; every token is of type 0 unless said otherwise."""
        lookups = [(self.word_embeddings, input_ids)]
        if self.token_type_embeddings is not None:
            types = ops.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            lookups.append((self.token_type_embeddings, types))
        return ops.embedding_norm(lookups, self.norm)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions."""

    def __init__(self, hidden_size: int, num_heads: int, rope: Rope, *, bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (hidden_size // num_heads) ** -0.5
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=bias)
        self.out = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.rope = rope

    def __call__(self, x: Array, positions: Array, cu_seqlens: Array, max_seqlen: int) -> Array:
        """[T, hidden] -> [T, hidden], before the output projection."""
        qkv = self.rope(ops.linear(x, self.qkv), positions, self.num_heads)
        return ops.attention(qkv, cu_seqlens, self.num_heads, self.scale, None, max_seqlen)


class MLP(nn.Module):
    """A gated feed-forward: down(up(x) * act(gate(x)))."""

    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str, *, bias: bool) -> None:
        super().__init__()
        self.up_gate = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down = nn.Linear(intermediate_size, hidden_size, bias=bias)
        self.activation = ops.activation(hidden_act)

    def __call__(self, x: Array, norm: LayerNorm) -> Array:
        """[T, hidden] -> [T, hidden], added to x and normalised."""
        return ops.gated_feed_forward(x, self.up_gate, self.down, self.activation, "second", norm)


class Layer(nn.Module):
    """Attention, then a gated feed-forward; each is added to its input and normalised."""

    def __init__(self, config: Config, rope: Rope, *, bias: bool) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self.attention = Attention(hidden, config.num_attention_heads, rope, bias=bias)
        self.attention_norm = LayerNorm(hidden, eps)
        self.mlp = MLP(hidden, config.intermediate_size, config.hidden_act, bias=bias)
        self.output_norm = LayerNorm(hidden, eps)

    def __call__(self, x: Array, positions: Array, cu_seqlens: Array, max_seqlen: int) -> Array:
        """[T, hidden] -> [T, hidden]."""
        attended = self.attention(x, positions, cu_seqlens, max_seqlen)
        x = ops.output_norm(attended, self.attention.out, x, self.attention_norm)
        return self.mlp(x, self.output_norm)


class Model(nn.Module):
    """The encoder: token ids to hidden states."""

    def __init__(self, config: Config, *, bias: bool = False, slowdown: float = 1.0) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        head_dim = config.hidden_size // config.num_attention_heads
        rope = Rope(head_dim, config.theta, config.max_position_embeddings, slowdown)
        self.layers = [Layer(config, rope, bias=bias) for _ in range(config.num_hidden_layers)]

    def __call__(
        self, input_ids: Array, cu_seqlens: Array, max_seqlen: int, token_type_ids: Array | None = None
    ) -> Array:
        """Token ids [T] of a packed batch to hidden states [T, hidden]."""
        x = self.embeddings(input_ids, token_type_ids)
        positions = ops.position_ids(cu_seqlens, input_ids.shape[0])
        for layer in self.layers:
            x = layer(x, positions, cu_seqlens, max_seqlen)
        return x
