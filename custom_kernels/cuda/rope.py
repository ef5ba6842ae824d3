"""Rotary position embedding on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.launch import launch


def rope(qkv: mx.array, positions: mx.array, cos: mx.array, sin: mx.array, num_heads: int) -> mx.array:
    """One launch of `rope.cu`: a thread for each pair of elements."""
    total, half = qkv.shape[0], cos.shape[1]
    return launch(
        "rope",
        [qkv, positions, cos, sin],
        [total],
        (-(-total * 3 * num_heads * half // 256), 256),
        qkv.shape,
        qkv.dtype,
        {"T": qkv.dtype},
        {"HEADS": num_heads, "HALF": half},
    )
