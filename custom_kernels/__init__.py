"""Ops of text encoders on MLX arrays, each with a reference that runs anywhere and kernels where they help.

The same ops on numpy arrays, with the same arguments, are in `custom_kernels.cpu`.
"""

from custom_kernels.cpu import blas, settings

# The one exception to "nothing happens at import": MLX binds to its BLAS once, when mlx.core is first imported.
blas.activate(settings.blas_threads())

from custom_kernels.choice.switch import use_kernels  # noqa: E402
from custom_kernels.ops.activate import activate, gelu, gelu_tanh  # noqa: E402
from custom_kernels.ops.attention import attention  # noqa: E402
from custom_kernels.ops.embedding_norm import embedding_norm  # noqa: E402
from custom_kernels.ops.gated_linear import gated_linear  # noqa: E402
from custom_kernels.ops.gather_mean import gather_mean  # noqa: E402
from custom_kernels.ops.layer_norm import layer_norm  # noqa: E402
from custom_kernels.ops.linear import lay_out_linear, linear  # noqa: E402
from custom_kernels.ops.linear_max import linear_max  # noqa: E402
from custom_kernels.ops.max_sim import max_sim  # noqa: E402
from custom_kernels.ops.mean_pool import mean_pool  # noqa: E402
from custom_kernels.ops.output_norm import output_norm  # noqa: E402
from custom_kernels.ops.position_ids import position_ids  # noqa: E402
from custom_kernels.ops.rms_norm import rms_norm  # noqa: E402
from custom_kernels.ops.rope import rope  # noqa: E402
from custom_kernels.ops.short_encoder import short_encoder  # noqa: E402
from custom_kernels.ops.top_k_scores import top_k_scores  # noqa: E402
from custom_kernels.parameters import HeadNorms, LayerWeights, Linear, Rotation  # noqa: E402

__all__ = [
    "HeadNorms",
    "LayerWeights",
    "Linear",
    "Rotation",
    "activate",
    "attention",
    "embedding_norm",
    "gated_linear",
    "gather_mean",
    "gelu",
    "gelu_tanh",
    "lay_out_linear",
    "layer_norm",
    "linear",
    "linear_max",
    "max_sim",
    "mean_pool",
    "output_norm",
    "position_ids",
    "rms_norm",
    "rope",
    "short_encoder",
    "top_k_scores",
    "use_kernels",
]
