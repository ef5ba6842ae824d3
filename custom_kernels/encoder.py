"""All post-norm layers of an encoder (BERT's) on a short batch, such as one query, in a single launch."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from custom_kernels.activation import ACTIVATIONS
from custom_kernels.attention import reference_attention
from custom_kernels.backends import Load, Op, random
from custom_kernels.layer_norm import reference_layer_norm

# Values of a short batch's hidden state: 256 tokens of MiniLM, 128 of BERT-base. Beyond, launches of their own, with
# larger tiles, measured faster on an H100.
MAX_SHORT = 2**17


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
    total: int, layers: Sequence[LayerWeights], num_heads: int, eps: float, act: str, bias: mx.array | None
) -> Callable[..., mx.array] | None:
    """What runs the layers, one or more, on `total` tokens in one launch, if this machine has a kernel for them.

    It takes x [T, H], cu_seqlens int32 [n + 1], a sequence of `LayerWeights`, num_heads, scale, eps, act (a key of
    ACTIVATIONS) and the attention's bias, None or [num_heads, L, L] with L at least the longest sequence; it gives
    [T, H].
    """
    dtype, (inner, hidden) = layers[0].up_weight.dtype, layers[0].up_weight.shape
    if not 1 <= total * hidden <= MAX_SHORT:
        return None
    if dtype == mx.float32 or any(x.dtype != dtype for weights in layers for x in weights):
        return None
    biased = None if bias is None else bias.dtype
    variant = Variant(dtype, hidden, inner, len(layers), num_heads, eps, act, biased, short_capacity(total))
    kernel = SHORT_ENCODER.pick(None, variant, Load.of(total))
    return None if kernel is reference_short_encoder else kernel


class Variant(NamedTuple):
    """What a kernel is compiled for, and may be wrong for."""

    dtype: mx.Dtype
    hidden: int
    inner: int
    layers: int
    heads: int
    eps: float
    act: str
    bias: mx.Dtype | None
    capacity: int


def short_capacity(total: int) -> int:
    """The tokens that a kernel for `total` of them is compiled for: a power of two from 16 up."""
    return max(16, 1 << (total - 1).bit_length())


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
    """The same, for checks: from composed MLX ops, and numpy's matrix product, since MLX's on a CPU may be slow."""
    longest = x.shape[0] if bias is None else min(x.shape[0], bias.shape[1])
    for w in layers:
        qkv = _product(x, w.qkv_weight) + w.qkv_bias
        attended = reference_attention(qkv, cu_seqlens, num_heads, scale, bias, max_seqlen=longest)
        x = x + _product(attended, w.out_weight) + w.out_bias
        x = reference_layer_norm(x, w.attention_norm_weight, w.attention_norm_bias, eps)
        inner = ACTIVATIONS[act](_product(x, w.up_weight) + w.up_bias)
        x = reference_layer_norm(
            x + _product(inner, w.down_weight) + w.down_bias, w.output_norm_weight, w.output_norm_bias, eps
        )
    return x


def _product(x: mx.array, weight: mx.array) -> mx.array:
    left, right = (np.array(array.astype(mx.float32)) for array in (x, weight))
    return mx.array(left @ right.T).astype(x.dtype)


def _sample(variant: Variant, load: Load | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Layers that share their weights, and two sequences, which leave the last tile of tokens partly empty."""
    dtype, hidden, inner, layers, heads, eps, act, biased, capacity = variant
    total = capacity - 3
    shapes = [(3 * hidden, hidden), (hidden, hidden), (hidden,), (inner, hidden), (hidden, inner), (hidden,)]
    pairs = [
        (
            random(*shape, dtype=dtype, scale=0.3 * shape[-1] ** -0.5 if len(shape) > 1 else 1.0, seed=seed),
            random(shape[0], dtype=dtype, seed=seed + 100),
        )
        for seed, shape in enumerate(shapes)
    ]
    weights = LayerWeights(*(array for pair in pairs for array in pair))
    cu_seqlens = mx.array(np.array([0, total // 3, total], dtype=np.int32))
    bias = None if biased is None else random(heads, total, total, dtype=biased)
    scale = (hidden // heads) ** -0.5
    x = random(total, hidden, dtype=dtype, seed=200)
    return (x, cu_seqlens, [weights] * layers, heads, scale, eps, act, bias), {}


# What runs instead is no one way: the layer's other ops, each by a kernel of its own.
SHORT_ENCODER = Op(
    "short_encoder", reference_short_encoder, lambda variant: {"reference": reference_short_encoder}, _sample
)
