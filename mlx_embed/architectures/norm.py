"""The LayerNorm and RMSNorm modules."""

import mlx.core as mx
import mlx.nn as nn

from custom_kernels import layer_norm, rms_norm


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
        return layer_norm(x, self.weight, self.get("bias"), self.eps, residual, in_graph=True)


class RMSNorm(nn.Module):
    """RMSNorm of x over the last axis, `residual` added; `custom_kernels.rms_norm` chooses what computes it.

    What is multiplied with is the weight plus `offset`, 1 in Gemma.
    """

    def __init__(self, dims: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = mx.ones((dims,))
        self.eps = eps
        self.offset = offset

    def __call__(self, x: mx.array, residual: mx.array | None = None) -> mx.array:
        """[T, dims] -> [T, dims]."""
        return rms_norm(x, self.weight, self.eps, residual, self.offset)
