"""Weights that ops take together."""

from collections.abc import Iterator
from functools import cached_property
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

    def times(self, x: mx.array) -> mx.array:
        """x W^T + b by MLX: [T, K] to [T, N]."""
        return x @ self.weight.T if self.bias is None else mx.addmm(self.bias, x, self.weight.T)

    def in_columns(self, count: int) -> "Iterator[Linear]":
        """The layer in parts of at most so many outputs, for MLX's products."""
        for start in range(0, self.weight.shape[0], count):
            bias = None if self.bias is None else self.bias[start : start + count]
            yield Linear(self.weight[start : start + count], bias)


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


class Layers(list[LayerWeights]):
    """The parameters of an encoder's layers, and all of them in one array, for launches that are to take few."""

    @property
    def size(self) -> int:
        """Numbers in all."""
        return sum(array.size for weights in self for array in weights)

    @cached_property
    def end_to_end(self) -> mx.array:
        """[size]: each layer's parameters in their order, layer after layer."""
        array = mx.concatenate([array.reshape(-1) for weights in self for array in weights])
        mx.eval(array)  # or every graph would do it again
        return array


class HeadNorms(NamedTuple):
    """What normalises each head of query and key before they are rotated: x / sqrt(mean(x^2) + eps) (offset + weight).

    Attributes:
        query: weight [head_dim].
        key: weight [head_dim], of the same dtype.
        eps: added to the mean of squares.
        offset: added to the weights.
    """

    query: mx.array
    key: mx.array
    eps: float
    offset: float = 0.0


class Rotation(NamedTuple):
    """The rotary positions of query and key.

    Attributes:
        positions: int32 [T], each token's place in its own sequence, as `position_ids` gives it.
        cos: float32 [P, head_dim / 2], a row a position, a whole array and not a slice of one.
        sin: float32 [P, head_dim / 2], likewise.
        norms: of the heads, or None.
        halves: cos and sin in float16, by which CUDA's kernel turns bfloat16; without, each call makes its own.
    """

    positions: mx.array
    cos: mx.array
    sin: mx.array
    norms: HeadNorms | None = None
    halves: tuple[mx.array, mx.array] | None = None
