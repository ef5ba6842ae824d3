"""Weights that ops take together."""

from typing import NamedTuple

import mlx.core as mx


class Linear(NamedTuple):
    """A linear layer's weight and bias.

    Attributes:
        weight: [N, K].
        bias: [N], a whole array and not a slice of one, or None.
        laid_out: `lay_out_linear` of the weight; without it no kernel of products runs.
    """

    weight: mx.array
    bias: mx.array | None = None
    laid_out: mx.array | None = None


class LayerWeights(NamedTuple):
    """A post-norm layer's parameters, all of one dtype, each a whole array and not a slice of one.

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
