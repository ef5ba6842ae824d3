"""Positions of packed tokens on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.launch import launch


def position_ids(cu_seqlens: mx.array, total: int) -> mx.array:
    """One launch of `position_ids.cu`: a thread a token."""
    n = cu_seqlens.shape[0] - 1
    return launch("position_ids", [cu_seqlens], [total, n], (-(-total // 256), 256), (total,), mx.int32)
