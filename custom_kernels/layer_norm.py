"""LayerNorm over the last axis, with an optional residual added first: reference, Metal and CUDA.

    y = (h - mean(h)) / sqrt(var(h) + eps) * weight + bias,   h = x + residual

Every form keeps h, the statistics and the affine step in float32 and rounds once, to x's dtype. The variance is
that of the centred values (two passes, never E[h^2] - mean^2), so rows far from zero stay exact.
"""

from functools import cache
from typing import Any

import mlx.core as mx

from custom_kernels.backends import KERNEL_BACKENDS, default_backend, kernel_source, require_backend

MAX_KERNEL_WIDTH = 8192
BACKENDS = ("fast", "reference", *KERNEL_BACKENDS)
_FLOATS = (mx.float32, mx.float16, mx.bfloat16)


def layer_norm(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    eps: float,
    residual: mx.array | None = None,
    *,
    backend: str | None = None,
) -> mx.array:
    """Normalise `x + residual` over its last axis.

    Args:
        x: [..., width], float32, float16 or bfloat16.
        weight: [width], any of these dtypes.
        bias: [width], or None for no offset.
        eps: added to the variance.
        residual: an array of x's shape and dtype, added to x before normalising.
        backend: "metal" or "cuda" for the custom kernel, "reference" for the composed ops, "fast" for MLX's
            built-in `mx.fast.layer_norm`. None takes the custom kernel where the default device has one and the
            row is at most 8192 wide, otherwise the reference.

    Returns:
        [..., width] of x's dtype.

    Raises:
        ValueError: shapes that do not fit, an unknown back end, or a row too wide for a named kernel.
        TypeError: a dtype that is not one of the three.
        RuntimeError: a named back end that this machine does not have.
    """
    _check(x, weight, bias, residual, backend)
    width = x.shape[-1]
    if backend is None:
        backend = default_backend() if width <= MAX_KERNEL_WIDTH else None
    if backend == "fast":
        return fast_layer_norm(x, weight, bias, eps, residual)
    if backend in KERNEL_BACKENDS:
        require_backend(backend)
        if x.size == 0:
            return x
        launch = metal_layer_norm if backend == "metal" else cuda_layer_norm
        return launch(x, weight, bias, eps, residual)
    return reference_layer_norm(x, weight, bias, eps, residual)


def reference_layer_norm(
    x: mx.array, weight: mx.array, bias: mx.array | None, eps: float, residual: mx.array | None = None
) -> mx.array:
    """The same from composed MLX ops: readable, and runs anywhere."""
    h = x.astype(mx.float32)
    if residual is not None:
        h = h + residual.astype(mx.float32)
    h = h - h.mean(axis=-1, keepdims=True)
    h = h - h.mean(axis=-1, keepdims=True)  # what rounding left in the first mean
    variance = mx.square(h).mean(axis=-1, keepdims=True)
    y = h * mx.rsqrt(variance + eps) * weight.astype(mx.float32)
    if bias is not None:
        y = y + bias.astype(mx.float32)
    return y.astype(x.dtype)


def fast_layer_norm(
    x: mx.array, weight: mx.array, bias: mx.array | None, eps: float, residual: mx.array | None = None
) -> mx.array:
    """The same by `mx.fast.layer_norm`; parameters take x's dtype, since MLX's result has their common dtype."""
    h = x if residual is None else x + residual
    return mx.fast.layer_norm(h, weight.astype(x.dtype), None if bias is None else bias.astype(x.dtype), eps)


def metal_layer_norm(
    x: mx.array, weight: mx.array, bias: mx.array | None, eps: float, residual: mx.array | None = None
) -> mx.array:
    """One launch of `metal/layer_norm.metal`: a threadgroup a row, at most 512 threads."""
    width = x.shape[-1]
    reads = 4 if width <= 2048 else 16
    threads = _round_up(-(-width // reads), 32)
    return _launch(
        "metal",
        x,
        weight,
        bias,
        eps,
        residual,
        template=[("T", x.dtype), ("WIDTH", width), ("READS", reads)],
        grid=(x.size // width * threads, 1, 1),
        threadgroup=(threads, 1, 1),
    )


def cuda_layer_norm(
    x: mx.array, weight: mx.array, bias: mx.array | None, eps: float, residual: mx.array | None = None
) -> mx.array:
    """One launch of `cuda/layer_norm.cu`: a warp a row up to 1024 wide, else up to 8 warps."""
    width = x.shape[-1]
    lanes = min(256, _round_up(-(-width // 32), 32))
    rows = 4 if lanes == 32 else 1
    widest = 16 // x.dtype.size
    dividing = [v for v in (widest, widest // 2, widest // 4) if v and width % v == 0]
    vector = next((v for v in dividing if width % (v * lanes) == 0), dividing[0] if dividing else 1)
    blocks = -(-(x.size // width) // rows)
    return _launch(
        "cuda",
        x,
        weight,
        bias,
        eps,
        residual,
        template=[("T", x.dtype), ("WIDTH", width), ("VEC", vector), ("LANES", lanes), ("ROWS", rows)],
        grid=(blocks * rows * lanes, 1, 1),
        threadgroup=(rows * lanes, 1, 1),
    )


def _launch(
    backend: str,
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    eps: float,
    residual: mx.array | None,
    *,
    template: list[tuple[str, Any]],
    grid: tuple[int, int, int],
    threadgroup: tuple[int, int, int],
) -> mx.array:
    rows = x.reshape(-1, x.shape[-1])
    # Without a residual the kernel still has the parameter, and never reads it.
    added = rows if residual is None else residual.reshape(rows.shape)
    offset = mx.zeros_like(weight) if bias is None else bias
    (out,) = _kernel(backend)(
        inputs=[rows, added, weight, offset, mx.array([eps], dtype=mx.float32)],
        template=[*template, ("HAS_RESIDUAL", residual is not None)],
        grid=grid,
        threadgroup=threadgroup,
        output_shapes=[rows.shape],
        output_dtypes=[x.dtype],
        stream=mx.gpu,
    )
    return out.reshape(x.shape)


@cache
def _kernel(backend: str) -> Any:
    # Built at first use: mx.fast.cuda_kernel refuses to be constructed without CUDA.
    build = mx.fast.metal_kernel if backend == "metal" else mx.fast.cuda_kernel
    return build(
        name="layer_norm",
        input_names=["x", "residual", "weight", "bias", "eps"],
        output_names=["out"],
        source=kernel_source(backend, "layer_norm"),
    )


def _check(
    x: mx.array, weight: mx.array, bias: mx.array | None, residual: mx.array | None, backend: str | None
) -> None:
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"layer_norm has no backend {backend!r}; choose one of {', '.join(BACKENDS)}, or None.")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"layer_norm normalises the last axis, but x has shape {tuple(x.shape)}.")
    width = x.shape[-1]
    named = [("x", x), ("weight", weight), ("bias", bias), ("residual", residual)]
    for name, array in named:
        if array is not None and array.dtype not in _FLOATS:
            raise TypeError(f"layer_norm takes float32, float16 or bfloat16, but {name} is {array.dtype}.")
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None and array.shape != (width,):
            raise ValueError(f"layer_norm of rows {width} wide needs {name} of shape ({width},), got {array.shape}.")
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(
            f"layer_norm needs a residual like x, {x.dtype} {tuple(x.shape)}, "
            f"got {residual.dtype} {tuple(residual.shape)}."
        )
    if backend in KERNEL_BACKENDS and width > MAX_KERNEL_WIDTH:
        raise ValueError(f"The {backend} layer_norm kernel takes rows up to {MAX_KERNEL_WIDTH} wide, got {width}.")


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
