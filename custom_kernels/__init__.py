"""Ops of text encoders on MLX arrays, each with a reference that runs anywhere and kernels where they help."""

from custom_kernels.cpu import blas

# The one exception to "nothing happens at import": MLX binds to its BLAS once, when mlx.core is first imported.
blas.activate()

from custom_kernels.activation import activate, gelu, gelu_tanh  # noqa: E402
from custom_kernels.attention import attention  # noqa: E402
from custom_kernels.backends import use_kernels  # noqa: E402
from custom_kernels.embedding import embedding_norm  # noqa: E402
from custom_kernels.layer_norm import layer_norm  # noqa: E402
from custom_kernels.linear import linear, output_norm, pack_linear  # noqa: E402
from custom_kernels.pool import mean_pool  # noqa: E402
from custom_kernels.rope import rope  # noqa: E402

__all__ = [
    "activate",
    "attention",
    "embedding_norm",
    "gelu",
    "gelu_tanh",
    "layer_norm",
    "linear",
    "mean_pool",
    "output_norm",
    "pack_linear",
    "rope",
    "use_kernels",
]
