"""Decoders that embed, packed: the layers of Llama (Touvron et al., 2023), and what Qwen3 and Gemma 3 add to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log, pi
from typing import Any, ClassVar, TypeVar

import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_embed.architectures import ops
from mlx_embed.architectures.config import LARGEST_SIZE, read_config, rope_theta
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.norm import RMSNorm
from mlx_embed.architectures.ops import Array, Rope, activation
from mlx_embed.errors import CheckpointError, UnsupportedModelError

PREFIXES = ("transformer.",)  # of one for question answering
PROJECTIONS = (
    ("self_attn.q_proj.", "attention.q."),
    ("self_attn.k_proj.", "attention.k."),
    ("self_attn.v_proj.", "attention.v."),
    ("self_attn.o_proj.", "attention.out."),
    ("self_attn.q_norm.", "attention.q_norm."),
    ("self_attn.k_norm.", "attention.k_norm."),
    ("mlp.up_proj.", "up."),
    ("mlp.gate_proj.", "gate."),
    ("mlp.down_proj.", "down."),
    ("input_layernorm.", "attention_norm."),
)
RENAMES: tuple[tuple[str, str], ...] = (*PROJECTIONS, ("post_attention_layernorm.", "mlp_norm."))
HEAD: tuple[tuple[str, str], ...] = (("score", "Identity"),)
LAYOUT: Layout = "packed"
# Rows are wider than an encoder's, so that fewer fill a GPU. Of 66 tiles of 256 rows each product takes whole rounds on
# a GPU of 132 multiprocessors; of 64 tiles the last round is not full.
BATCH_TOKENS = 66 * 256

# The kinds of RoPE scaling, and the numbers that config.json gives for each.
SCALINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow"),
}


@dataclass(frozen=True)
class Config:
    """The part of config.json that shapes every decoder."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float
    rope_scaling: dict[str, Any] | None = None
    rms_norm_eps: float = 1e-6
    causal: bool = True
    type_vocab_size: ClassVar[int] = 0

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that the model was made for."""
        return self.max_position_embeddings


AnyConfig = TypeVar("AnyConfig", bound=Config)


@dataclass(frozen=True)
class Sight:
    """What a layer's tokens see: the angles of their positions, and how far, or None for the whole text."""

    rope: Rope
    window: int | None


@dataclass(frozen=True)
class Style:
    """What one kind of decoder has otherwise than another.

    Attributes:
        activation: of the feed-forward's gate, as `ops.activation` gives it.
        scale: of the attention's scores.
        head_norms: whether each head of query and key is normalised.
        output_norms: whether what attention and feed-forward give is normalised, before it is added.
        offset: added to the weights of norms.
        embedding_scale: what embeddings are multiplied with.
        qkv_bias: whether the projections to query, key and value have a bias.
        out_bias: whether attention's output has.
        mlp_bias: whether the feed-forward's layers have.
    """

    activation: str
    scale: float
    head_norms: bool = False
    output_norms: bool = False
    offset: float = 0.0
    embedding_scale: float = 1.0
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False


class Attention(nn.Module):
    """Self-attention with rotary positions, whose heads of key and value may be fewer than the query's."""

    def __init__(self, config: Config, style: Style, sight: Sight) -> None:
        super().__init__()
        heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.qkv = nn.Linear(config.hidden_size, (heads + 2 * kv_heads) * dim, bias=style.qkv_bias)
        self.out = nn.Linear(heads * dim, config.hidden_size, bias=style.out_bias)
        if style.head_norms:
            self.q_norm = RMSNorm(dim, config.rms_norm_eps, style.offset)
            self.k_norm = RMSNorm(dim, config.rms_norm_eps, style.offset)
        self.num_heads, self.kv_heads, self.scale = heads, kv_heads, style.scale
        self.causal, self.head_norms, self.sight = config.causal, style.head_norms, sight

    def __call__(self, x: Array, positions: Array, cu_seqlens: Array, max_seqlen: int) -> Array:
        """[T, hidden] -> [T, heads * head_dim], before the output projection."""
        norms = (self.q_norm, self.k_norm) if self.head_norms else None
        return ops.attention(
            ops.linear(x, self.qkv),
            cu_seqlens,
            self.num_heads,
            self.scale,
            None,
            max_seqlen,
            self.sight.window,
            causal=self.causal,
            kv_heads=self.kv_heads,
            rotation=ops.rotation(positions, self.sight.rope, max_seqlen, norms),
        )


class Layer(nn.Module):
    """Attention, then a gated feed-forward; each has its input normalised, and what was before that added."""

    def __init__(self, config: Config, style: Style, sight: Sight) -> None:
        super().__init__()
        hidden, eps, offset = config.hidden_size, config.rms_norm_eps, style.offset
        self.attention_norm = RMSNorm(hidden, eps, offset)
        self.attention = Attention(config, style, sight)
        self.mlp_norm = RMSNorm(hidden, eps, offset)
        self.up_gate = nn.Linear(hidden, 2 * config.intermediate_size, bias=style.mlp_bias)
        self.down = nn.Linear(config.intermediate_size, hidden, bias=style.mlp_bias)
        if style.output_norms:
            self.attention_output_norm = RMSNorm(hidden, eps, offset)
            self.mlp_output_norm = RMSNorm(hidden, eps, offset)
        self.activation, self.output_norms = style.activation, style.output_norms

    def __call__(
        self, x: Array, positions: Array, cu_seqlens: Array, max_seqlen: int, rows: Array | None = None
    ) -> Array:
        """[T, hidden] -> [T, hidden], or [n, hidden] of the tokens `rows`."""
        attended = self.attention(ops.rms_norm(x, self.attention_norm), positions, cu_seqlens, max_seqlen)
        attended, x = ops.at_rows(rows, attended, x)
        if self.output_norms:
            x = ops.rms_norm(ops.linear(attended, self.attention.out), self.attention_output_norm, x)
            return ops.rms_norm(self._feed_forward(x, None), self.mlp_output_norm, x)
        x = ops.add_linear(attended, self.attention.out, x)
        return self._feed_forward(x, x)

    def _feed_forward(self, x: Array, residual: Array | None) -> Array:
        normed = ops.rms_norm(x, self.mlp_norm)
        return ops.gated(normed, self.up_gate, self.down, self.activation, "second", residual)


class Model(nn.Module):
    """A decoder: token ids to hidden states."""

    batch_tokens = BATCH_TOKENS
    takes_rows = True

    def __init__(self, config: Config, style: Style, sights: Sequence[Sight]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [Layer(config, style, sight) for sight in sights]
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, style.offset)
        self.embedding_scale = style.embedding_scale

    def __call__(self, input_ids: Array, cu_seqlens: Array, max_seqlen: int, rows: Array | None = None) -> Array:
        """Token ids [T] of a packed batch to hidden states [T, hidden], or [n, hidden] of the tokens `rows`."""
        x = ops.embed(self.embed_tokens, input_ids, self.embedding_scale)
        positions = ops.position_ids(cu_seqlens, input_ids.shape[0])
        for layer, wanted in ops.with_rows(self.layers, rows):
            x = layer(x, positions, cu_seqlens, max_seqlen, wanted)
        return ops.rms_norm(x, self.norm)


def angles(config: Config, theta: float, scaling: Mapping[str, Any] | None) -> Rope:
    """The rotary positions of a base of frequencies and what `rope` says of their scaling.

    As transformers computes them (modeling_rope_utils.py): "linear" (kaiokendev, 2023) divides all frequencies,
    "llama3" those of long wavelengths, "yarn" (Peng et al., 2023) those that turn seldom within the original length.
    """
    dim = config.head_dim
    places = np.arange(0, dim, 2) / dim
    frequencies: npt.NDArray[np.float64] = theta**-places
    magnitude = 1.0
    if scaling is not None:
        factor = scaling["factor"]
        if scaling["rope_type"] == "linear":
            frequencies = frequencies / factor
        elif scaling["rope_type"] == "llama3":
            turns = scaling["original_max_position_embeddings"] * frequencies / (2 * pi)
            low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
            kept = np.clip((turns - low) / (high - low), 0, 1) if high > low else (turns >= high).astype(np.float64)
            frequencies = frequencies * ((1 - kept) / factor + kept)
        else:
            whole = scaling["original_max_position_embeddings"]
            fast, slow = (
                dim * log(whole / (beta * 2 * pi)) / (2 * log(theta))
                for beta in (scaling["beta_fast"], scaling["beta_slow"])
            )
            first, last = max(floor(fast), 0), min(ceil(slow), dim - 1)
            lost = np.clip((np.arange(dim // 2) - first) / (last - first if last != first else 0.001), 0, 1)
            frequencies = frequencies * (lost / factor + 1 - lost)
            magnitude = 0.1 * log(factor) + 1 if factor > 1 else 1.0
    return Rope.of(frequencies, config.max_position_embeddings, magnitude)


def sight(config: Config, rope: Rope, window: int | None = None) -> Sight:
    """Tokens that see those at most `window` away; nobody is further away than the longest text is long."""
    return Sight(rope, None if window is None or window >= config.max_position_embeddings else window)


def uniform(config: Config, style: Style, window: int | None = None) -> Model:
    """A decoder all of whose layers have the config's one rotation, and tokens that see at most `window` away."""
    whole = sight(config, angles(config, config.rope_theta, config.rope_scaling), window)
    return Model(config, style, [whole] * config.num_hidden_layers)


def turned(config: Mapping[str, Any], default: float) -> dict[str, Any]:
    """What `rope` says of config.json, under the names of `Config`."""
    theta, scaling = rope(config, default)
    return {"rope_theta": theta, "rope_scaling": scaling}


def with_sizes_of_heads(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that say how many heads of key and value there are, and how wide, or what holds without them."""
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    found = {}
    if config.get("num_key_value_heads") is None:
        found["num_key_value_heads"] = heads
    if config.get("head_dim") is None and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
        found["head_dim"] = hidden // heads
    return found


def read(cls: type[AnyConfig], config: Mapping[str, Any], derived: Mapping[str, Any]) -> AnyConfig:
    """Build the dataclass `cls` from config.json's values and those derived from them."""
    result = read_config(cls, {**config, **derived})
    if result.num_attention_heads % result.num_key_value_heads or result.head_dim % 2:
        raise CheckpointError(
            f"config.json has {result.num_attention_heads} heads of {result.head_dim} dimensions for "
            f"{result.num_key_value_heads} key_value_heads."
        )
    return result


def expect(config: Mapping[str, Any], **implemented: Any) -> None:
    """UnsupportedModelError where config.json has anything else for these keys, or for activations another function."""
    for name, value in implemented.items():
        given = config.get(name)
        if name.startswith("hidden_act") and isinstance(given, str) and activation(given) == activation(value):
            continue
        if given not in (value, None):
            raise UnsupportedModelError(f'config.json has "{name}": {config[name]!r}; mlx_embed has {value!r}.')


def check_all_full(config: Mapping[str, Any]) -> None:
    """UnsupportedModelError where layer_types has layers that do not see the whole text."""
    types = config.get("layer_types")
    if types is not None and not (isinstance(types, list) and all(kind == "full_attention" for kind in types)):
        raise UnsupportedModelError(f'config.json has "layer_types": {types!r}; mlx_embed has "full_attention".')


def rope(
    config: Mapping[str, Any], default: float, *, kind: str | None = None, name: str = "rope_theta"
) -> tuple[float, dict[str, Any] | None]:
    """The base of RoPE's frequencies and how they are scaled, "rope_type" and its numbers; None is not at all.

    They are in rope_parameters since transformers 5, where `kind` picks the layers that have their own; before that the
    base is on its own, as `name`, and rope_scaling is of the layers whose base is rope_theta.
    """
    given = config.get("rope_parameters")
    if given is None:
        scaling = config.get("rope_scaling") if name == "rope_theta" else None
    else:
        scaling = given.get(kind) if kind is not None and isinstance(given, dict) else given
    if scaling is None:
        scaling = {}
    method = scaling.get("rope_type", scaling.get("type", "default")) if isinstance(scaling, dict) else None
    if not isinstance(method, str) or method not in SCALINGS:
        raise UnsupportedModelError(f"config.json scales RoPE by {scaling!r}; mlx_embed has {', '.join(SCALINGS)}.")
    theta = rope_theta({name: scaling.get("rope_theta", config.get(name, default))}, default, name=name)
    if method == "default":
        return theta, None
    whole = {"original_max_position_embeddings": config.get("max_position_embeddings"), "beta_fast": 32, "beta_slow": 1}
    numbers = {key: scaling.get(key, whole.get(key)) for key in SCALINGS[method]}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LARGEST_SIZE:
            raise CheckpointError(f'config.json scales RoPE with "{key}": {value!r}, where a number is needed.')
    known = {"rope_type", "type", "rope_theta", *numbers}
    if more := {key: value for key, value in scaling.items() if key not in known and value is not None}:
        raise UnsupportedModelError(f"config.json scales RoPE with {more!r} too, which mlx_embed does not know.")
    return theta, {"rope_type": method, **numbers}
