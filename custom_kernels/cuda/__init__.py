"""CUDA kernels, one function an op, with the op's own signature.

NotImplementedError says that there is no kernel for these shapes or dtypes. What a model fixes (dtypes, widths) is
compiled in; what changes from batch to batch is an argument.
"""

from custom_kernels.cuda.activate import activate
from custom_kernels.cuda.attention import attention
from custom_kernels.cuda.embedding_norm import embedding_norm
from custom_kernels.cuda.gated_linear import gated_linear
from custom_kernels.cuda.layer_norm import layer_norm
from custom_kernels.cuda.linear import linear
from custom_kernels.cuda.linear_max import linear_max
from custom_kernels.cuda.max_sim import max_sim
from custom_kernels.cuda.mean_pool import mean_pool
from custom_kernels.cuda.output_norm import output_norm
from custom_kernels.cuda.position_ids import position_ids
from custom_kernels.cuda.rms_norm import rms_norm
from custom_kernels.cuda.rope import rope
from custom_kernels.cuda.short_encoder import short_encoder
from custom_kernels.cuda.top_k_scores import top_k_scores

__all__ = [
    "activate",
    "attention",
    "embedding_norm",
    "gated_linear",
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
]
