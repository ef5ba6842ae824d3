"""Rotary position embedding on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.launch import launch, vector
from custom_kernels.parameters import HeadNorms

THREADS = 256


def rope(
    qkv: mx.array,
    positions: mx.array,
    cos: mx.array,
    sin: mx.array,
    num_heads: int,
    kv_heads: int | None = None,
    norms: HeadNorms | None = None,
) -> mx.array:
    """One launch of `rope.cu`: some threads for each head of each token."""
    total, half, kv_heads = qkv.shape[0], cos.shape[1], kv_heads or num_heads
    read_at_once = vector(half, qkv.dtype, 1)
    lanes = min(32, 1 << (half // read_at_once - 1).bit_length())
    all_heads = num_heads + 2 * kv_heads
    constants = {"HEADS": num_heads, "KV_HEADS": kv_heads, "HALF": half, "VEC": read_at_once, "LANES": lanes}
    # Without norms the kernel still has their parameters, and never reads them.
    weights = [qkv, qkv] if norms is None else [norms.query, norms.key]
    return launch(
        "rope",
        [qkv, positions, cos, sin, *weights],
        [total, *((0.0, 0.0) if norms is None else (norms.eps, norms.offset))],
        (-(-total * all_heads * lanes // THREADS), THREADS),
        qkv.shape,
        qkv.dtype,
        {"T": qkv.dtype, "N": weights[0].dtype},
        constants | {"NORM": norms is not None},
    )
