"""EmbeddingGemma 2 (Google DeepMind, 2026), its text encoder, packed: Gemma's layers, each gated once more by a signal
of the embeddings alone, and all of them seeing both ways.

A folder has the model_type "embedding_gemma2", with what is meant here in its text_config, or "embedding_gemma2_text".
What it has for pictures, sound and films is passed over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlx_embed.architectures import ops
from mlx_embed.architectures.config import LARGEST_SIZE, read_config, rope_theta
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.decoder import BATCH_TOKENS, expect
from mlx_embed.architectures.direction import checked_direction
from mlx_embed.architectures.gemma3_text import FULL, SLIDING
from mlx_embed.architectures.norm import RMSNorm
from mlx_embed.architectures.ops import Array, Rope, activation
from mlx_embed.errors import CheckpointError, UnsupportedModelError

PREFIXES = ("language_model.",)
RENAMES = (
    # First, since errors turn names back from the last pair on, and these hold what others give.
    ("ple_block.per_layer_input_gate.", "signal_in."),
    ("ple_block.per_layer_projection.", "signal_out."),
    ("ple_block.post_per_layer_input_norm.", "signal_norm."),
    ("ple.per_layer_model_projection.", "signals."),
    ("ple.per_layer_projection_norm.", "signals_norm."),
    ("self_attn.q_proj.", "attention.query."),
    ("self_attn.k_proj.", "attention.key."),
    ("self_attn.v_proj.", "attention.value."),
    ("self_attn.o_proj.", "attention.out."),
    ("self_attn.q_norm.", "attention.q_norm."),
    ("self_attn.k_norm.", "attention.k_norm."),
    ("input_layernorm.", "attention_norm."),
    ("post_attention_layernorm.", "attention_output_norm."),
    ("pre_feedforward_layernorm.", "mlp_norm."),
    ("post_feedforward_layernorm.", "mlp_output_norm."),
    ("mlp.up_proj.", "up."),
    ("mlp.gate_proj.", "gate."),
    ("mlp.down_proj.", "down."),
)
HEAD: tuple[tuple[str, str], ...] = ()
LAYOUT: Layout = "packed"

_THETAS = {FULL: 1_000_000.0, SLIDING: 10_000.0}
# Ids in a text that stand for something else than text, which count as padding there.
_MEDIA = ("image_token_id", "video_token_id", "audio_token_id")


@dataclass(frozen=True)
class Heads:
    """What a layer's attention has of its own.

    Attributes:
        dim: of a head.
        kv: heads of key and value.
        theta: the base of its rotary positions.
        window: how far a token may be away to be seen; None for the whole text.
    """

    dim: int
    kv: int
    theta: float
    window: int | None


@dataclass(frozen=True)
class Config:
    """The part of config.json that shapes the encoder; what it calls hidden_size is `width`, of the layers' states."""

    vocab_size: int
    width: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    heads: tuple[Heads, ...]
    embedding_dim: int = 768
    hidden_size_per_layer_input: int = 512
    rms_norm_eps: float = 1e-6
    pad_token_id: int = 0
    media: tuple[int, ...] = ()
    type_vocab_size: ClassVar[int] = 0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        text: Any = config.get("text_config") if config.get("model_type") == "embedding_gemma2" else config
        if not isinstance(text, dict):
            raise CheckpointError(f'config.json has "text_config": {text!r}, where an object is needed.')
        expect(text, hidden_activation="gelu_pytorch_tanh", attention_bias=False)
        checked_direction(text, causal=False)
        checked_direction(config, causal=False)
        media = tuple(config[key] for key in _MEDIA if type(config.get(key)) is int)
        result = read_config(cls, {**text, "heads": _heads(text), "media": media}, {"width": "hidden_size"})
        if bad := [heads.kv for heads in result.heads if result.num_attention_heads % heads.kv]:
            raise CheckpointError(
                f"config.json has {result.num_attention_heads} attention heads for {bad[0]} of key and value."
            )
        return result

    @property
    def hidden_size(self) -> int:
        """Dimensions of a hidden state, as it leaves the encoder."""
        return self.embedding_dim

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that the model was made for."""
        return self.max_position_embeddings


def _heads(text: Mapping[str, Any]) -> tuple[Heads, ...]:
    """Each layer's, as transformers derives them where config.json does not say."""
    count, types, pattern = (text.get(key) for key in ("num_hidden_layers", "layer_types", "sliding_window_pattern"))
    if type(count) is not int or not 1 <= count <= LARGEST_SIZE:
        raise CheckpointError(f'config.json has "num_hidden_layers": {count!r}, where an int is needed.')
    if types is None:
        every = 6 if pattern is None else pattern
        if type(every) is not int or every < 1:
            raise CheckpointError(f'config.json has "sliding_window_pattern": {every!r}, where an int is needed.')
        types = [SLIDING if (i + 1) % every else FULL for i in range(count)]
    if not isinstance(types, list) or len(types) != count or not {*map(str, types)} <= {FULL, SLIDING}:
        raise CheckpointError(f'config.json has "layer_types": {types!r:.200} for {count} layers.')
    types = [*types[:-1], FULL]  # which transformers makes of the last, whatever is said
    own = text.get("per_layer_config")
    if own is None:
        wide = {"head_dim": text.get("global_head_dim", 512)}
        wide["num_key_value_heads"] = text.get("num_global_key_value_heads", 1)
        own = {str(i): wide for i, kind in enumerate(types) if kind == FULL}
    if not isinstance(own, dict) or not all(isinstance(x, dict) and str(key).isdecimal() for key, x in own.items()):
        raise CheckpointError(f'config.json has "per_layer_config": {own!r:.200}, where objects by layer are needed.')
    named = {int(key): value for key, value in own.items()}
    known = {"head_dim", "num_key_value_heads"}
    if more := {key for value in named.values() for key in value} - known:
        raise UnsupportedModelError(f'config.json has "per_layer_config" with {", ".join(sorted(more))}.')
    window = text.get("sliding_window", 512)
    thetas = {kind: rope_theta(text, theta, kind=kind) for kind, theta in _THETAS.items()}
    found = []
    for index, kind in enumerate(types):
        sizes = {"head_dim": text.get("head_dim", 256), "num_key_value_heads": text.get("num_key_value_heads", 2)}
        sizes |= named.get(index, {})
        whole = [*sizes.values(), window]
        if not all(type(x) is int and 1 <= x <= LARGEST_SIZE for x in whole) or sizes["head_dim"] % 2:
            raise CheckpointError(f"config.json gives layer {index} {sizes} and the window {window!r}.")
        seen = None if kind == FULL else window
        found.append(Heads(sizes["head_dim"], sizes["num_key_value_heads"], thetas[kind], seen))
    return tuple(found)


class Attention(nn.Module):
    """Self-attention with rotary positions, whose heads are normalised, those of values too; scores are not scaled."""

    def __init__(self, config: Config, heads: Heads, rope: Rope) -> None:
        super().__init__()
        width, eps = config.width, config.rms_norm_eps
        self.query = nn.Linear(width, config.num_attention_heads * heads.dim, bias=False)
        self.key = nn.Linear(width, heads.kv * heads.dim, bias=False)
        self.value = nn.Linear(width, heads.kv * heads.dim, bias=False)
        self.out = nn.Linear(config.num_attention_heads * heads.dim, width, bias=False)
        self.q_norm, self.k_norm = RMSNorm(heads.dim, eps), RMSNorm(heads.dim, eps)
        self.num_heads, self.heads, self.rope, self.eps = config.num_attention_heads, heads, rope, eps

    def __call__(self, x: Array, positions: Array, cu_seqlens: Array, max_seqlen: int) -> Array:
        """[T, width] -> [T, heads * dim], before the output projection."""
        q, k, v = (ops.linear(x, layer) for layer in (self.query, self.key, self.value))
        exact = ops.float32(v).reshape(v.shape[0], self.heads.kv, self.heads.dim)
        squares = (exact * exact).mean(axis=-1, keepdims=True)
        xp = ops.namespace(v)
        v = (exact / xp.sqrt(squares + self.eps)).reshape(v.shape).astype(v.dtype)
        return ops.attention(
            xp.concatenate([q, k, v], axis=1),
            cu_seqlens,
            self.num_heads,
            1.0,
            None,
            max_seqlen,
            self.heads.window,
            kv_heads=self.heads.kv,
            rotation=ops.rotation(positions, self.rope, max_seqlen, (self.q_norm, self.k_norm)),
        )


class Layer(nn.Module):
    """Attention, a gated feed-forward, and a part that the layer's signal gates; each is normalised and added."""

    def __init__(self, config: Config, heads: Heads, rope: Rope) -> None:
        super().__init__()
        width, eps = config.width, config.rms_norm_eps
        self.attention = Attention(config, heads, rope)
        self.up_gate = nn.Linear(width, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, width, bias=False)
        self.signal_in = nn.Linear(width, config.hidden_size_per_layer_input, bias=False)
        self.signal_out = nn.Linear(config.hidden_size_per_layer_input, width, bias=False)
        self.attention_norm, self.attention_output_norm = RMSNorm(width, eps), RMSNorm(width, eps)
        self.mlp_norm, self.mlp_output_norm = RMSNorm(width, eps), RMSNorm(width, eps)
        self.signal_norm = RMSNorm(width, eps)
        self.layer_scalar = mx.ones((1,))
        self.activation = activation("gelu_pytorch_tanh")

    def __call__(self, x: Array, signal: Array, positions: Array, cu_seqlens: Array, max_seqlen: int) -> Array:
        """[T, width] and the layer's signal [T, P] -> [T, width]."""
        attended = self.attention(ops.rms_norm(x, self.attention_norm), positions, cu_seqlens, max_seqlen)
        x = ops.rms_norm(ops.linear(attended, self.attention.out), self.attention_output_norm, x)
        fed = ops.gated(ops.rms_norm(x, self.mlp_norm), self.up_gate, self.down, self.activation, "second")
        x = ops.rms_norm(fed, self.mlp_output_norm, x)
        gated = ops.linear(x, self.signal_in, self.activation) * signal
        return ops.rms_norm(ops.linear(gated, self.signal_out), self.signal_norm, x) * ops.own(self.layer_scalar, x)


class Model(nn.Module):
    """The text encoder: token ids to hidden states."""

    batch_tokens = BATCH_TOKENS

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, count, eps = config.width, config.num_hidden_layers, config.rms_norm_eps
        ropes = {
            (heads.dim, heads.theta): Rope(heads.dim, heads.theta, config.max_position_embeddings)
            for heads in config.heads
        }
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.signals = nn.Linear(width, count * config.hidden_size_per_layer_input, bias=False)
        self.signals_norm = RMSNorm(config.hidden_size_per_layer_input, eps)
        self.layers = [Layer(config, heads, ropes[heads.dim, heads.theta]) for heads in config.heads]
        self.norm = RMSNorm(width, eps)
        self.embedding_projection = nn.Linear(width, config.embedding_dim, bias=False)
        self.width, self.size = width, config.hidden_size_per_layer_input
        self.media, self.pad_token_id = config.media, config.pad_token_id

    def __call__(self, input_ids: Array, cu_seqlens: Array, max_seqlen: int) -> Array:
        """Token ids [T] of a packed batch to hidden states [T, embedding_dim]."""
        xp, total = ops.namespace(input_ids), input_ids.shape[0]
        for token in self.media:
            input_ids = xp.where(input_ids == token, self.pad_token_id, input_ids)
        x = ops.embed(self.embed_tokens, input_ids, self.width**0.5)
        size = self.size
        signals = (ops.linear(x, self.signals) * self.width**-0.5).reshape(total * len(self.layers), size)
        signals = ops.rms_norm(signals, self.signals_norm).reshape(total, len(self.layers), size)
        positions = ops.position_ids(cu_seqlens, total)
        for index, layer in enumerate(self.layers):
            x = layer(x, signals[:, index], positions, cu_seqlens, max_seqlen)
        return ops.linear(ops.rms_norm(x, self.norm), self.embedding_projection)
