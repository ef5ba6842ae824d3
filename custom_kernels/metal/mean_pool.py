"""Mean pooling on Metal."""

import mlx.core as mx

from custom_kernels.metal.launch import kernel


def mean_pool(hidden: mx.array, cu_seqlens: mx.array, skip: int = 0, normalize: bool = False) -> mx.array:
    """One launch of `mean_pool.metal`: a threadgroup of 512 threads a sequence."""
    n, width = cu_seqlens.size - 1, hidden.shape[1]
    across, down = 128, 4
    (out,) = kernel("mean_pool", "hidden", "cu_seqlens", "skip")(
        inputs=[hidden, cu_seqlens, mx.array([skip], dtype=mx.int32)],
        template=[("WIDTH", width), ("ACROSS", across), ("DOWN", down), ("NORMALIZE", normalize)],
        grid=(n * across * down, 1, 1),
        threadgroup=(across * down, 1, 1),
        output_shapes=[(n, width)],
        output_dtypes=[mx.float32],
        stream=mx.gpu,
    )
    return out
