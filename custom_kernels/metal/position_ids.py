"""Positions of packed tokens on Metal."""

import mlx.core as mx

from custom_kernels.metal.launch import kernel


def position_ids(cu_seqlens: mx.array, total: int) -> mx.array:
    """One launch of `position_ids.metal`: a thread a token."""
    (out,) = kernel("position_ids", "cu_seqlens", "n")(
        inputs=[cu_seqlens, mx.array([cu_seqlens.size - 1], dtype=mx.int32)],
        grid=(total, 1, 1),
        threadgroup=(min(total, 256), 1, 1),
        output_shapes=[(total,)],
        output_dtypes=[mx.int32],
        stream=mx.gpu,
    )
    return out
