"""Rotary position embedding on Metal."""

import mlx.core as mx

from custom_kernels.metal.launch import kernel
from custom_kernels.parameters import HeadNorms


def rope(
    qkv: mx.array,
    positions: mx.array,
    cos: mx.array,
    sin: mx.array,
    num_heads: int,
    kv_heads: int | None = None,
    norms: HeadNorms | None = None,
) -> mx.array:
    """One launch of `rope.metal`: a simdgroup for each head of each token."""
    half, kv_heads = cos.shape[1], kv_heads or num_heads
    heads = num_heads + 2 * kv_heads
    # Without norms the kernel still has their parameters, and never reads them.
    weights = [qkv, qkv] if norms is None else [norms.query, norms.key]
    (out,) = kernel("rope", "qkv", "positions", "cosines", "sines", "query_norm", "key_norm", "numbers")(
        inputs=[
            qkv,
            positions,
            cos,
            sin,
            *weights,
            mx.array([0.0, 0.0] if norms is None else [norms.eps, norms.offset], dtype=mx.float32),
        ],
        template=[
            ("T", qkv.dtype),
            ("HEADS", num_heads),
            ("KV_HEADS", kv_heads),
            ("HALF", half),
            ("NORM", norms is not None),
        ],
        grid=(32, heads, qkv.shape[0]),
        threadgroup=(32, min(heads, 8), 1),
        output_shapes=[qkv.shape],
        output_dtypes=[qkv.dtype],
        stream=mx.gpu,
    )
    return out
