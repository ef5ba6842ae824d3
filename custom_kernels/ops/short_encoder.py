"""All post-norm layers of an encoder (BERT's) on a short batch, such as one query, in a single launch."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from custom_kernels import cuda
from custom_kernels.arrays import random, starts
from custom_kernels.choice.op import Arguments, Load, Op
from custom_kernels.cuda.heuristics import is_short, short_layers_fit
from custom_kernels.cuda.short_encoder import capacity
from custom_kernels.ops.activate import ACTIVATIONS
from custom_kernels.ops.attention import reference_attention
from custom_kernels.ops.layer_norm import reference_layer_norm
from custom_kernels.parameters import Layers, LayerWeights

__all__ = ["LayerWeights", "is_short", "short_encoder"]


def short_encoder(
    total: int, layers: Sequence[LayerWeights], num_heads: int, eps: float, act: str, bias: mx.array | None
) -> Callable[..., mx.array] | None:
    """What runs the layers, one or more, on `total` tokens in one launch, if this machine has a kernel for them.

    It takes x [T, H], a whole array and not a slice of one, cu_seqlens int32 [n + 1], a sequence of `LayerWeights`,
    num_heads, scale, eps, act (a key of ACTIVATIONS) and the attention's bias, None or [num_heads, 2 L - 1] as
    `attention` takes it; it gives [T, H].
    """
    dtype, (inner, hidden) = layers[0].up_weight.dtype, layers[0].up_weight.shape
    # Not left to the kernel to refuse: in a rehearsal the reference would run instead, which computes as it is called.
    if not (is_short(total * hidden) and short_layers_fit(hidden, inner, num_heads)):
        return None
    if dtype == mx.float32 or any(x.dtype != dtype for weights in layers for x in weights):
        return None
    biased = None if bias is None else bias.dtype
    variant = Variant(dtype, hidden, inner, len(layers), num_heads, eps, act, biased, capacity(total))
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
    longest = x.shape[0] if bias is None else min(x.shape[0], bias.shape[1] // 2 + 1)
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


def _sample(variant: Variant, load: Load | None) -> Arguments:
    """Layers that share their weights, and two sequences, which leave the last tile of tokens partly empty."""
    dtype, hidden, inner, layers, heads, eps, act, biased, tokens = variant
    total = tokens - 3
    shapes = [(3 * hidden, hidden), (hidden, hidden), (hidden,), (inner, hidden), (hidden, inner), (hidden,)]
    pairs = [
        (
            random(*shape, dtype=dtype, scale=0.3 * shape[-1] ** -0.5 if len(shape) > 1 else 1.0, seed=seed),
            random(shape[0], dtype=dtype, seed=seed + 100),
        )
        for seed, shape in enumerate(shapes)
    ]
    weights = LayerWeights(*(array for pair in pairs for array in pair))
    bias = None if biased is None else random(heads, 2 * total - 1, dtype=biased)
    scale = (hidden // heads) ** -0.5
    x = random(total, hidden, dtype=dtype, seed=200)
    return (x, starts(total // 3, total - total // 3), Layers([weights] * layers), heads, scale, eps, act, bias), {}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    """None: what runs instead is no one way, but the layer's other ops, each by a kernel of its own."""
    return iter(())


SHORT_ENCODER = Op(
    "short_encoder",
    {"cuda": cuda.short_encoder},
    reference_short_encoder,
    lambda variant: {"reference": reference_short_encoder},
    _sample,
    _typical,
)
