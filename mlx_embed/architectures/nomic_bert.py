"""NomicBERT (Nussbaum et al., 2024), packed: BERT with rotary positions and SwiGLU, without biases.

nomic-embed-text-v2-moe has biases and GELU, and in every other layer experts in the place of the feed-forward.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn

from mlx_embed.architectures import bert, ops
from mlx_embed.architectures.config import read_config, rope_theta
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import checked_direction, flag
from mlx_embed.architectures.experts import Experts
from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.architectures.ops import Array, Rope
from mlx_embed.errors import CheckpointError, UnsupportedModelError

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
    ("mlp.fc1.", "mlp.up."),
    ("mlp.fc2.", "mlp.down."),
    ("mlp.router.layer.", "mlp.router."),
    ("mlp.experts.mlp.w1", "mlp.up.weight"),
    ("mlp.experts.mlp.w2", "mlp.down.weight"),
    ("mlp.experts.bias", "mlp.down.bias"),
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
    "prenorm": False,
    "parallel_block": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "use_rms_norm": False,
    "moe_normalize_expert_weights": False,
    "expert_choice_router": False,
    "num_shared_experts": 0,
    "ffn_div": 1,
}
# The authors' names of a feed-forward: its activation, and whether it is gated.
_ACTIVATIONS = {"swiglu": ("silu", True), "gelu": ("gelu", False)}


@dataclass(frozen=True)
class RotaryConfig:
    """The part of config.json that shapes a post-norm encoder with rotary positions."""

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

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that the model was made for."""
        return self.max_position_embeddings


@dataclass(frozen=True)
class Config(RotaryConfig):
    """The part of config.json that shapes the encoder.

    Where `moe_every_n_layers` is n, layers 1, n + 1, ... have experts, of which each token has `moe_top_k`.
    """

    gated: bool = True
    qkv_proj_bias: bool = False
    mlp_fc1_bias: bool = False
    mlp_fc2_bias: bool = False
    moe_every_n_layers: int = 0
    num_experts: int = 0
    moe_top_k: int = 1

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json, transformers' or the authors'."""
        authors = "n_embd" in config
        for name, value in _FIXED.items():
            if authors and config.get(name, value) not in (value, None):
                raise UnsupportedModelError(f'config.json has "{name}": {config[name]!r}; mlx_embed has {value!r}.')
        name = "rotary_emb_base" if authors else "rope_theta"
        derived: dict[str, Any] = {"theta": rope_theta(config, cls.theta, name=name)}
        if authors:
            function = config.get("activation_function") or "swiglu"
            if function not in _ACTIVATIONS:
                raise UnsupportedModelError(
                    f'config.json has "activation_function": {function!r}; mlx_embed has {", ".join(_ACTIVATIONS)}.'
                )
            derived["hidden_act"], derived["gated"] = _ACTIVATIONS[function]
            for key in ("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"):
                derived[key] = flag(config, key, default=False)
        result = read_config(cls, {**config, **derived}, _NAMES if authors else {})
        if result.moe_every_n_layers and not 1 <= result.moe_top_k <= result.num_experts:
            raise CheckpointError(
                f'config.json has "moe_top_k": {result.moe_top_k} of "num_experts": {result.num_experts}.'
            )
        checked_direction(config, causal=False)
        ops.activation(result.hidden_act)
        return result

    def has_experts(self, layer: int) -> bool:
        """Whether a layer has experts in the place of a feed-forward."""
        return self.moe_every_n_layers > 0 and layer % self.moe_every_n_layers == 1


class Embeddings(nn.Module):
    """Word + token type, normalised; positions come in with the attention."""

    def __init__(self, config: bert.EmbeddingsConfig) -> None:
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
        rotation = ops.rotation(positions, self.rope, max_seqlen)
        qkv = ops.linear(x, self.qkv)
        return ops.attention(qkv, cu_seqlens, self.num_heads, self.scale, None, max_seqlen, rotation=rotation)


class GatedMLP(nn.Module):
    """A gated feed-forward: down(up(x) * act(gate(x)))."""

    def __init__(self, config: RotaryConfig, *, up_bias: bool = False, down_bias: bool = False) -> None:
        super().__init__()
        self.up_gate = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=up_bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=down_bias)
        self.activation = ops.activation(config.hidden_act)

    def __call__(self, x: Array, norm: LayerNorm) -> Array:
        """[T, hidden] -> [T, hidden], added to x and normalised."""
        return ops.gated_feed_forward(x, self.up_gate, self.down, self.activation, "second", norm)


class MLP(nn.Module):
    """A feed-forward of two layers: down(act(up(x)))."""

    def __init__(self, config: RotaryConfig, *, up_bias: bool = True, down_bias: bool = True) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size, bias=up_bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=down_bias)
        self.activation = ops.activation(config.hidden_act)

    def __call__(self, x: Array, norm: LayerNorm) -> Array:
        """[T, hidden] -> [T, hidden], added to x and normalised."""
        return ops.feed_forward(x, self.up, self.down, self.activation, norm)


class Layer(nn.Module):
    """Attention, then a feed-forward; each is added to its input and normalised."""

    def __init__(self, config: RotaryConfig, rope: Rope, mlp: nn.Module, *, bias: bool) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self.attention = Attention(hidden, config.num_attention_heads, rope, bias=bias)
        self.attention_norm = LayerNorm(hidden, eps)
        self.mlp = mlp
        self.output_norm = LayerNorm(hidden, eps)

    def __call__(
        self, x: Array, positions: Array, cu_seqlens: Array, max_seqlen: int, rows: Array | None = None
    ) -> Array:
        """[T, hidden] -> [T, hidden], or [n, hidden] of the tokens `rows`."""
        attended = self.attention(x, positions, cu_seqlens, max_seqlen)
        attended, x = ops.at_rows(rows, attended, x)
        x = ops.output_norm(attended, self.attention.out, x, self.attention_norm)
        return self.mlp(x, self.output_norm)


class Encoder(nn.Module):
    """Layers with rotary positions, between token ids and hidden states."""

    takes_rows = True

    def __init__(self, config: RotaryConfig, slowdown: float = 1.0) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        head_dim = config.hidden_size // config.num_attention_heads
        rope = Rope(head_dim, config.theta, config.max_position_embeddings, slowdown)
        self.layers = [self.layer(config, rope, index) for index in range(config.num_hidden_layers)]

    def layer(self, config: Any, rope: Rope, index: int) -> nn.Module:
        """One of its layers, the first of which has index 0."""
        raise NotImplementedError

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
        positions = ops.position_ids(cu_seqlens, input_ids.shape[0])
        for layer, wanted in ops.with_rows(self.layers, rows):
            x = layer(x, positions, cu_seqlens, max_seqlen, wanted)
        return x


class Model(Encoder):
    """The encoder: token ids to hidden states."""

    def layer(self, config: Config, rope: Rope, index: int) -> nn.Module:
        """One of its layers, the first of which has index 0."""
        if config.has_experts(index):
            sizes = config.hidden_size, config.intermediate_size
            mlp: nn.Module = Experts(*sizes, config.num_experts, config.moe_top_k, ops.activation(config.hidden_act))
        else:
            kind = GatedMLP if config.gated else MLP
            mlp = kind(config, up_bias=config.mlp_fc1_bias, down_bias=config.mlp_fc2_bias)
        return Layer(config, rope, mlp, bias=config.qkv_proj_bias)
