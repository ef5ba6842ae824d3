"""RMSNorm on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.heuristics import norm_rows
from custom_kernels.cuda.launch import launch, vector


def rms_norm(
    x: mx.array, weight: mx.array, eps: float, residual: mx.array | None = None, offset: float = 0.0
) -> mx.array:
    """One launch of `rms_norm.cu`."""
    width = x.shape[-1]
    rows = x.reshape(-1, width)
    lanes, each = norm_rows(width)
    constants = {
        "WIDTH": width,
        "VEC": vector(width, x.dtype, lanes),
        "LANES": lanes,
        "ROWS": each,
        "HAS_RESIDUAL": residual is not None,
        "HALF": x.dtype == mx.float16,
    }
    out = launch(
        "rms_norm",
        # Without a residual the kernel still has the parameter, and never reads it.
        [rows, weight, rows if residual is None else residual.reshape(rows.shape)],
        [rows.shape[0], eps, offset],
        (-(-rows.shape[0] // each), each * lanes),
        rows.shape,
        x.dtype,
        {"T": x.dtype, "W": weight.dtype},
        constants,
    )
    return out.reshape(x.shape)
