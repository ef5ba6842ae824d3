"""The LayerNorm module."""

import mlx.core as mx
import mlx.nn as nn

from custom_kernels import layer_norm


class LayerNorm(nn.Module):
    """LayerNorm of `x + residual` over the last axis; `custom_kernels.layer_norm` chooses what computes it."""

    def __init__(self, dims: int, eps: float, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = mx.ones((dims,))
        if bias:
            self.bias = mx.zeros((dims,))
        self.eps = eps

    def __call__(self, x: mx.array, residual: mx.array | None = None) -> mx.array:
        """[T, dims] -> [T, dims]."""
        return layer_norm(x, self.weight, self.get("bias"), self.eps, residual)
