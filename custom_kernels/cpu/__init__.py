"""Ops of text encoders on numpy float32 arrays, by C++ kernels for the processor this runs on.

The kernels are one shared library with a plain C interface, built by `pip install` where a C++ compiler is there
(`python setup.py build_ext --inplace` does it alone). It links neither MLX nor Python, is loaded at first use, and
picks AVX-512, AVX2 or the baseline (NEON on aarch64) by what the processor has. Ask `available()` first: every op
raises RuntimeError without the library.

All arrays are C-contiguous float32 unless said otherwise, T counts the packed tokens of a batch, and `cu_seqlens`
[n + 1] int32 says where each of its n sequences begins. A result does not depend on the number of threads, nor on
what else is in the batch, unless `multiply_by` has brought a BLAS in. Ops may be called from several threads; a forked
child may call them too.
"""

from custom_kernels.cpu import settings
from custom_kernels.cpu.attention import attention
from custom_kernels.cpu.cores import usable_cores
from custom_kernels.cpu.disentangled_attention import disentangled_attention
from custom_kernels.cpu.embedding_norm import embedding_norm
from custom_kernels.cpu.encoder import Encoder, EncoderLayer
from custom_kernels.cpu.feed_forward import feed_forward
from custom_kernels.cpu.gather_mean import Table, gather_mean
from custom_kernels.cpu.inner_products import inner_products
from custom_kernels.cpu.layer_norm import Norm, layer_norm
from custom_kernels.cpu.library import (
    attends,
    available,
    instruction_set,
    multiply_by,
    num_threads,
    product,
    set_num_threads,
    why_unavailable,
)
from custom_kernels.cpu.linear import Linear, linear
from custom_kernels.cpu.linear_max import linear_max
from custom_kernels.cpu.max_sim import max_sim
from custom_kernels.cpu.mean_pool import mean_pool
from custom_kernels.cpu.memory import trim
from custom_kernels.cpu.output_norm import output_norm
from custom_kernels.cpu.packed import sequence_ids
from custom_kernels.cpu.position_ids import position_ids
from custom_kernels.cpu.rms_norm import RMSNorm, rms_norm
from custom_kernels.cpu.rope import rope
from custom_kernels.cpu.top_k_scores import top_k_scores

__all__ = [
    "Encoder",
    "EncoderLayer",
    "Linear",
    "Norm",
    "RMSNorm",
    "Table",
    "attends",
    "attention",
    "available",
    "disentangled_attention",
    "embedding_norm",
    "feed_forward",
    "gather_mean",
    "inner_products",
    "instruction_set",
    "layer_norm",
    "linear",
    "linear_max",
    "max_sim",
    "mean_pool",
    "multiply_by",
    "num_threads",
    "output_norm",
    "position_ids",
    "product",
    "rms_norm",
    "rope",
    "sequence_ids",
    "set_num_threads",
    "settings",
    "top_k_scores",
    "trim",
    "usable_cores",
    "why_unavailable",
]
