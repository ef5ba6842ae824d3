"""LayerNorm on Metal."""

import mlx.core as mx

from custom_kernels.metal.launch import kernel, row_threads, shared_source


def layer_norm(
    x: mx.array, weight: mx.array, bias: mx.array | None, eps: float, residual: mx.array | None = None
) -> mx.array:
    """One launch of `layer_norm.metal`: a threadgroup a row, at most 512 threads."""
    width = x.shape[-1]
    reads, threads = row_threads(width)
    rows = x.reshape(-1, width)
    (out,) = kernel("layer_norm", "x", "residual", "weight", "bias", "eps", header=shared_source("normalise"))(
        # Without a residual or a bias the kernel still has the parameter, and never reads it.
        inputs=[
            rows,
            rows if residual is None else residual.reshape(rows.shape),
            weight,
            weight if bias is None else bias,
            mx.array([eps], dtype=mx.float32),
        ],
        template=[
            ("T", x.dtype),
            ("WIDTH", width),
            ("READS", reads),
            ("HAS_RESIDUAL", residual is not None),
            ("HAS_BIAS", bias is not None),
        ],
        grid=(x.size // width * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[rows.shape],
        output_dtypes=[x.dtype],
        stream=mx.gpu,
    )
    return out.reshape(x.shape)
