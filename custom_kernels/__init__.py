"""Ops of text encoders on MLX arrays, each with a reference that runs anywhere and kernels where they help."""

from custom_kernels.attention import attention
from custom_kernels.gelu import gelu, gelu_tanh
from custom_kernels.layer_norm import layer_norm

__all__ = ["attention", "gelu", "gelu_tanh", "layer_norm"]
