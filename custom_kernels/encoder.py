"""A post-norm encoder layer (BERT's) on a short batch, such as one query, in a single launch."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from custom_kernels.attention import reference_attention
from custom_kernels.backends import Load, Op
from custom_kernels.gelu import gelu, gelu_tanh
from custom_kernels.layer_norm import reference_layer_norm

# Tokens of a short batch. Beyond, separate launches of larger kernels are no slower.
MAX_SHORT = 128

ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": nn.relu,
    "silu": nn.silu,
}


class LayerWeights(NamedTuple):
    """One layer's parameters, all of one dtype, each a whole array and not a slice of one.

    Matrices are [out, in]; `qkv` is [3 H, H], `up` [I, H], `down` [H, I].
    """

    qkv_weight: mx.array
    qkv_bias: mx.array
    out_weight: mx.array
    out_bias: mx.array
    attention_norm_weight: mx.array
    attention_norm_bias: mx.array
    up_weight: mx.array
    up_bias: mx.array
    down_weight: mx.array
    down_bias: mx.array
    output_norm_weight: mx.array
    output_norm_bias: mx.array


def short_encoder(
    total: int, weights: LayerWeights, num_heads: int, eps: float, act: str, bias: mx.array | None
) -> Callable[..., mx.array] | None:
    """What runs such layers on `total` tokens in one launch each, if this machine has a kernel for them.

    It takes x [T, H], cu_seqlens int32 [n + 1], a sequence of `LayerWeights`, num_heads, scale, eps, act (a key of
    ACTIVATIONS) and the attention's bias, None or [num_heads, L, L] with L at least the longest sequence; it gives
    [T, H].
    """
    dtype, (inner, hidden) = weights.up_weight.dtype, weights.up_weight.shape
    if not 1 <= total <= MAX_SHORT or dtype == mx.float32 or any(x.dtype != dtype for x in weights):
        return None
    biased = None if bias is None else bias.dtype
    variant = (dtype, hidden, inner, num_heads, eps, act, biased, short_tiles(total))
    kernel = SHORT_ENCODER.pick(None, variant, Load.of(total))
    return None if kernel is reference_short_encoder else kernel


def short_tiles(total: int) -> int:
    """Tiles of 16 tokens that a kernel is compiled for: 1, 2, 4 or 8."""
    return 1 << (-(-total // 16) - 1).bit_length()


def reference_short_encoder(
    x: mx.array,
    cu_seqlens: mx.array,
    layers: Sequence[LayerWeights],
    num_heads: int,
    scale: float,
    eps: float,
    act: str,
    bias: mx.array | None = None,
) -> mx.array:
    """The same from composed MLX ops."""
    longest = x.shape[0] if bias is None else min(x.shape[0], bias.shape[1])
    for w in layers:
        qkv = x @ w.qkv_weight.T + w.qkv_bias
        attended = reference_attention(qkv, cu_seqlens, num_heads, scale, bias, max_seqlen=longest)
        x = x + attended @ w.out_weight.T + w.out_bias
        x = reference_layer_norm(x, w.attention_norm_weight, w.attention_norm_bias, eps)
        inner = ACTIVATIONS[act](x @ w.up_weight.T + w.up_bias)
        x = reference_layer_norm(
            x + inner @ w.down_weight.T + w.down_bias, w.output_norm_weight, w.output_norm_bias, eps
        )
    return x


def _sample(variant: tuple[Any, ...], load: Load | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Two layers with the same weights, and two sequences, which leave the last tile of tokens partly empty."""
    dtype, hidden, inner, num_heads, eps, act, biased, tiles = variant
    total = 16 * tiles - 3
    rng = np.random.default_rng(0)

    def random(*shape: int, scale: float = 1.0, dtype: mx.Dtype = dtype) -> mx.array:
        return mx.array(rng.standard_normal(shape, dtype=np.float32) * scale).astype(dtype)

    shapes = [(3 * hidden, hidden), (hidden, hidden), (hidden,), (inner, hidden), (hidden, inner), (hidden,)]
    weights = LayerWeights(
        *(a for s in shapes for a in (random(*s, scale=0.5 * s[-1] ** -0.5 if len(s) > 1 else 1.0), random(s[0])))
    )
    cu_seqlens = mx.array(np.array([0, total // 3, total], dtype=np.int32))
    bias = None if biased is None else random(num_heads, total, total, dtype=biased)
    scale = (hidden // num_heads) ** -0.5
    return (random(total, hidden), cu_seqlens, [weights] * 2, num_heads, scale, eps, act, bias), {}


# The built-in way is that of the ops that it would replace, one by one: there is nothing to time.
SHORT_ENCODER = Op(
    "short_encoder", reference_short_encoder, lambda variant: {"reference": reference_short_encoder}, _sample
)
