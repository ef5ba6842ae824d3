"""Launches of the Metal kernels, one function an op, with the op's own signature."""

from functools import cache
from typing import Any

import mlx.core as mx

from custom_kernels.backends import kernel_source


def layer_norm(
    x: mx.array, weight: mx.array, bias: mx.array | None, eps: float, residual: mx.array | None = None
) -> mx.array:
    """One launch of `layer_norm.metal`: a threadgroup a row, at most 512 threads."""
    width = x.shape[-1]
    reads = 4 if width <= 2048 else 16
    threads = _round_up(-(-width // reads), 32)
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
            ("READS", reads),
            ("HAS_RESIDUAL", residual is not None),
        ],
        grid=(x.size // width * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[rows.shape],
        output_dtypes=[x.dtype],
        stream=mx.gpu,
    )
    return out.reshape(x.shape)


@cache
def _layer_norm() -> Any:
    return mx.fast.metal_kernel(
        name="layer_norm",
        input_names=["x", "residual", "weight", "bias", "eps"],
        output_names=["out"],
        source=kernel_source("metal", "layer_norm"),
    )


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
