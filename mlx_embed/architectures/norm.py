"""The LayerNorm module."""

from typing import Literal, get_args

import mlx.core as mx
import mlx.nn as nn

from custom_kernels import layer_norm

LayerNormKind = Literal["fast", "custom", "reference"]
LAYER_NORMS: tuple[str, ...] = get_args(LayerNormKind)


class LayerNorm(nn.Module):
    """LayerNorm of `x + residual` over the last axis, by the implementation named in `kind`."""

    def __init__(self, dims: int, eps: float, kind: LayerNormKind = "fast", *, bias: bool = True) -> None:
        super().__init__()
        self.weight = mx.ones((dims,))
        if bias:
            self.bias = mx.zeros((dims,))
        self.eps = eps
        self.backend = None if kind == "custom" else kind

    def __call__(self, x: mx.array, residual: mx.array | None = None) -> mx.array:
        """[T, dims] -> [T, dims]."""
        return layer_norm(x, self.weight, self.get("bias"), self.eps, residual, backend=self.backend)
