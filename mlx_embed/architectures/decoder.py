"""Decoders that embed: mlx-lm's own model code, on packed batches in which every text is followed by its padding.

That makes them blocks, padded on the right: see `batching.pack_blocks`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, ClassVar, TypeVar

import mlx.core as mx
import mlx.nn as nn

from custom_kernels.ops.attention import MASKED
from custom_kernels.packed import counting, lengths
from mlx_embed.architectures.config import LARGEST_SIZE, read_config, rope_theta
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.ops import activation
from mlx_embed.errors import CheckpointError, UnsupportedModelError

# mlx-lm's models name their parameters as transformers does, so that nothing is renamed.
PREFIXES: tuple[str, ...] = ()
RENAMES: tuple[tuple[str, str], ...] = ()
HEAD: tuple[tuple[str, str], ...] = ()
# mlx-lm's code runs on padded blocks, by MLX's ops alone.
LAYOUT: Layout = "padded"

# The kinds of RoPE scaling that mlx-lm computes as transformers does, and the numbers that config.json gives for each.
SCALINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow"),
}


@dataclass(frozen=True)
class Config:
    """The part of config.json that shapes every decoder, under mlx-lm's names."""

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


class Visibility:
    """Stands where mlx-lm's models take a KV cache: it keeps nothing, and says which tokens see which.

    Those of a text, not its padding; before a token only, if `causal`; with a `window`, less than so many tokens away.
    """

    offset = 0

    def __init__(self, lengths: mx.array, dtype: mx.Dtype, *, causal: bool, window: int | None = None) -> None:
        self.lengths = lengths
        self.dtype = dtype
        self.causal = causal
        self.window = window

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """The keys and values of this batch, which are all there are."""
        return keys, values

    def make_mask(self, length: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """What is added to the scores of a layer, which may have a window: broadcasts to [n, heads, L, L]."""
        window = self.window if window_size is None else window_size
        place = counting(length)
        ahead = place - place[:, None]
        seen = place < self.lengths[:, None, None, None]
        if self.causal:
            seen = seen & (ahead <= 0)
        if window is not None and window < length:
            seen = seen & (mx.abs(ahead) < window)
        # Added to the scores, not a mask of booleans: MLX's CUDA back end would convert that in every layer.
        return mx.where(seen, 0.0, MASKED).astype(self.dtype)


Options = Callable[[Any, mx.array, mx.array], dict[str, Any]]


def decoder(config: Config, file: str, kind: str, options: Options | None = None) -> nn.Module:
    """The class `kind` of mlx-lm's `file`, called as encoders are: packed ids [T] to hidden states [T, hidden].

    Of the sequences, every second one is the padding of the one before, up to `max_seqlen`.

    `options(model, block [n, L], lengths [n])` makes its arguments beside the ids; None leaves it causal, where padding
    on the right changes nothing.
    """
    code = _code(file)
    base: Any = getattr(code, kind)

    class Model(base):
        def __call__(self, input_ids: mx.array, cu_seqlens: mx.array, max_seqlen: int) -> mx.array:
            block = input_ids.reshape(-1, max_seqlen)
            more = {} if options is None else options(self, block, lengths(cu_seqlens)[::2])
            return super().__call__(block, **more).reshape(input_ids.shape[0], -1)

    arguments = {"model_type": file, "tie_word_embeddings": True, **asdict(config)}
    model: nn.Module = Model(code.ModelArgs.from_dict(arguments))
    return model


def _code(file: str) -> Any:
    try:
        return import_module(f"mlx_embed.architectures.mlx_lm.{file}")
    except ImportError as error:
        raise UnsupportedModelError(
            f"Decoder models run on mlx-lm's code, which is not here ({error}): "
            'pip install ".[decoders]" in a clone of mlx-embed, or pip install mlx-lm'
        ) from error


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


def rope(
    config: Mapping[str, Any], default: float, *, kind: str | None = None, name: str = "rope_theta"
) -> tuple[float, dict[str, Any] | None]:
    """The base of RoPE's frequencies and how they are scaled, in mlx-lm's terms; None is not at all.

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
