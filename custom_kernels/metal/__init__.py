"""Metal kernels, one function an op, with the op's own signature.

NotImplementedError says that there is no kernel for these shapes. What a model fixes (dtypes, widths) is a template
argument; what changes from batch to batch is an input.
"""

from custom_kernels.metal.activate import activate
from custom_kernels.metal.attention import attention
from custom_kernels.metal.embedding_norm import embedding_norm
from custom_kernels.metal.layer_norm import layer_norm
from custom_kernels.metal.linear import linear
from custom_kernels.metal.linear_max import linear_max
from custom_kernels.metal.max_sim import max_sim
from custom_kernels.metal.mean_pool import mean_pool
from custom_kernels.metal.position_ids import position_ids
from custom_kernels.metal.rms_norm import rms_norm
from custom_kernels.metal.rope import rope
from custom_kernels.metal.top_k_scores import top_k_scores

__all__ = [
    "activate",
    "attention",
    "embedding_norm",
    "layer_norm",
    "linear",
    "linear_max",
    "max_sim",
    "mean_pool",
    "position_ids",
    "rms_norm",
    "rope",
    "top_k_scores",
]
