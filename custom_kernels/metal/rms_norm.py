"""RMSNorm on Metal."""

import mlx.core as mx

from custom_kernels.metal.launch import kernel, row_threads


def rms_norm(
    x: mx.array, weight: mx.array, eps: float, residual: mx.array | None = None, offset: float = 0.0
) -> mx.array:
    """One launch of `rms_norm.metal`: a threadgroup a row, at most 512 threads."""
    width = x.shape[-1]
    reads, threads = row_threads(width)
    rows = x.reshape(-1, width)
    (out,) = kernel("rms_norm", "x", "weight", "residual", "numbers")(
        # Without a residual the kernel still has the parameter, and never reads it.
        inputs=[
            rows,
            weight,
            rows if residual is None else residual.reshape(rows.shape),
            mx.array([eps, offset], dtype=mx.float32),
        ],
        template=[
            ("T", x.dtype),
            ("WIDTH", width),
            ("READS", reads),
            ("HAS_RESIDUAL", residual is not None),
            ("HALF", x.dtype == mx.float16),
        ],
        grid=(x.size // width * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[rows.shape],
        output_dtypes=[x.dtype],
        stream=mx.gpu,
    )
    return out.reshape(x.shape)
