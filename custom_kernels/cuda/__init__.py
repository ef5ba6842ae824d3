"""Launches of the CUDA kernels, one function an op, with the op's own signature."""

from functools import cache
from typing import Any

import mlx.core as mx

from custom_kernels.backends import kernel_source


def layer_norm(
    x: mx.array, weight: mx.array, bias: mx.array | None, eps: float, residual: mx.array | None = None
) -> mx.array:
    """One launch of `layer_norm.cu`: a warp a row up to 1024 wide, else up to 8 warps."""
    width = x.shape[-1]
    lanes = min(256, _round_up(-(-width // 32), 32))
    rows_a_block = 4 if lanes == 32 else 1
    widest = 16 // x.dtype.size
    dividing = [v for v in (widest, widest // 2, widest // 4) if v and width % v == 0]
    vector = next((v for v in dividing if width % (v * lanes) == 0), dividing[0] if dividing else 1)
    blocks = -(-(x.size // width) // rows_a_block)
    rows = x.reshape(-1, width)
    (out,) = _layer_norm()(
        # Without a residual the kernel still has the parameter, and never reads it.
        inputs=[
            rows,
            rows if residual is None else residual.reshape(rows.shape),
            weight,
            mx.zeros_like(weight) if bias is None else bias,
            mx.array([eps], dtype=mx.float32),
        ],
        template=[
            ("T", x.dtype),
            ("WIDTH", width),
            ("VEC", vector),
            ("LANES", lanes),
            ("ROWS", rows_a_block),
            ("HAS_RESIDUAL", residual is not None),
        ],
        grid=(blocks * rows_a_block * lanes, 1, 1),
        threadgroup=(rows_a_block * lanes, 1, 1),
        output_shapes=[rows.shape],
        output_dtypes=[x.dtype],
        stream=mx.gpu,
    )
    return out.reshape(x.shape)


@cache
def _layer_norm() -> Any:
    # Built at first use: mx.fast.cuda_kernel refuses to be constructed without CUDA.
    return mx.fast.cuda_kernel(
        name="layer_norm",
        input_names=["x", "residual", "weight", "bias", "eps"],
        output_names=["out"],
        source=kernel_source("cuda", "layer_norm"),
    )


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
