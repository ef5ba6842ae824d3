"""Ops of text encoders on MLX arrays, each with a reference that runs anywhere and kernels where they help."""

from custom_kernels.attention import attention
from custom_kernels.backends import use_kernels
from custom_kernels.embedding import embedding_norm
from custom_kernels.gelu import gelu, gelu_tanh
from custom_kernels.layer_norm import layer_norm
from custom_kernels.pool import mean_pool
from custom_kernels.rope import rope

__all__ = ["attention", "embedding_norm", "gelu", "gelu_tanh", "layer_norm", "mean_pool", "rope", "use_kernels"]
