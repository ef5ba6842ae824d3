"""Rotary position embedding on Metal."""

import mlx.core as mx

from custom_kernels.metal.launch import kernel


def rope(qkv: mx.array, positions: mx.array, cos: mx.array, sin: mx.array, num_heads: int) -> mx.array:
    """One launch of `rope.metal`: a thread for each pair of elements."""
    half = cos.shape[1]
    pairs = 3 * num_heads * half
    (out,) = kernel("rope", "qkv", "positions", "cosines", "sines")(
        inputs=[qkv, positions, cos, sin],
        template=[("T", qkv.dtype), ("HEADS", num_heads), ("HALF", half)],
        grid=(pairs, qkv.shape[0], 1),
        threadgroup=(min(pairs, 256), 1, 1),
        output_shapes=[qkv.shape],
        output_dtypes=[qkv.dtype],
        stream=mx.gpu,
    )
    return out
