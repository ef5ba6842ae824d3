"""Mean pooling on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.heuristics import pool_groups
from custom_kernels.cuda.launch import launch, vector


def mean_pool(hidden: mx.array, cu_seqlens: mx.array, skip: int = 0, normalize: bool = False) -> mx.array:
    """One launch of `mean_pool.cu`: a block a sequence."""
    width = hidden.shape[1]
    n = cu_seqlens.shape[0] - 1
    elements = vector(width, hidden.dtype, 32)
    chunks = -(-width // (32 * elements))
    if chunks > 32:
        raise NotImplementedError(f"The CUDA mean_pool kernel does not take rows {width} wide.")
    groups = pool_groups(chunks)
    constants = {"WIDTH": width, "VEC": elements, "GROUPS": groups, "NORMALIZE": normalize}
    return launch(
        "mean_pool",
        [hidden, cu_seqlens],
        [skip],
        (n, chunks * groups * 32),
        (n, width),
        mx.float32,
        {"T": hidden.dtype},
        constants,
    )
