"""What every op means: its signature and checks, its reference, and the choice between its kernels.

OPS is the list of them all, which `env`, `compare`, `tune` and the tests go through.
"""

from custom_kernels.choice.op import Op
from custom_kernels.ops.activate import ACTIVATE
from custom_kernels.ops.attention import ATTENTION
from custom_kernels.ops.embedding_norm import EMBEDDING_NORM
from custom_kernels.ops.gated_linear import GATED_LINEAR
from custom_kernels.ops.gather_mean import GATHER_MEAN
from custom_kernels.ops.layer_norm import LAYER_NORM
from custom_kernels.ops.linear import LINEAR
from custom_kernels.ops.linear_max import LINEAR_MAX
from custom_kernels.ops.max_sim import MAX_SIM
from custom_kernels.ops.mean_pool import MEAN_POOL
from custom_kernels.ops.output_norm import OUTPUT_NORM
from custom_kernels.ops.position_ids import POSITION_IDS
from custom_kernels.ops.rms_norm import RMS_NORM
from custom_kernels.ops.rope import ROPE
from custom_kernels.ops.short_encoder import SHORT_ENCODER
from custom_kernels.ops.top_k_scores import TOP_K_SCORES

OPS: tuple[Op, ...] = (
    LAYER_NORM,
    EMBEDDING_NORM,
    ATTENTION,
    RMS_NORM,
    ACTIVATE,
    LINEAR,
    GATED_LINEAR,
    OUTPUT_NORM,
    SHORT_ENCODER,
    MEAN_POOL,
    GATHER_MEAN,
    LINEAR_MAX,
    MAX_SIM,
    ROPE,
    POSITION_IDS,
    TOP_K_SCORES,
)
