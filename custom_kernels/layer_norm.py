"""LayerNorm over the last axis, with an optional residual added first: reference, Metal and CUDA.

    y = (h - mean(h)) / sqrt(var(h) + eps) * weight + bias,   h = x + residual

Every form keeps h, the statistics and the affine step in float32 and rounds once, to x's dtype. The variance is
that of the centred values (two passes, never E[h^2] - mean^2), so rows far from zero stay exact.
"""

from typing import Any, NamedTuple, TypeVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from custom_kernels import cpu
from custom_kernels.backends import KERNEL_BACKENDS, Load, Op, default_backend, random, spelled

MAX_KERNEL_WIDTH = 8192
# On an H100 a plain LayerNorm of fewer elements waits for its launch, and MLX's own launches sooner.
CUDA_PLAIN_SIZE = 3 << 20
BACKENDS = ("fast", "reference", *KERNEL_BACKENDS)
FLOATS = (mx.float32, mx.float16, mx.bfloat16)

Array = TypeVar("Array", mx.array, npt.NDArray[np.float32])


def layer_norm(
    x: Array,
    weight: Array,
    bias: Array | None,
    eps: float,
    residual: Array | None = None,
    *,
    backend: str | None = None,
) -> Array:
    """Normalise `x + residual` over its last axis.

    Args:
        x: [..., width], float32, float16 or bfloat16; numpy arrays run on the native CPU kernels.
        weight: [width], any of these dtypes.
        bias: [width], or None for no offset.
        eps: added to the variance.
        residual: an array of x's shape and dtype, added to x before normalising.
        backend: "metal" or "cuda" for the custom kernel, "reference" for the composed ops, "fast" for MLX's
            built-in `mx.fast.layer_norm`. None takes what measured fastest, on our H100 or on the user's Mac:
            the custom kernel or, always for rows more than 8192 wide and on a CPU, the built-in.

    Returns:
        [..., width] of x's dtype.

    Raises:
        ValueError: shapes that do not fit, an unknown back end, or a row too wide for a named kernel.
        TypeError: a dtype that is not one of the three.
        RuntimeError: a named back end that this machine does not have.
    """
    if isinstance(x, np.ndarray):
        return cpu.layer_norm(x, weight, bias, eps, residual)
    _check(x, weight, bias, residual, backend)
    if backend == "reference":
        return reference_layer_norm(x, weight, bias, eps, residual)
    if x.size == 0:
        return x
    builtin = backend is None and residual is None and x.size < CUDA_PLAIN_SIZE and default_backend() == "cuda"
    if backend == "fast" or builtin or x.shape[-1] > MAX_KERNEL_WIDTH:
        return fast_layer_norm(x, weight, bias, eps, residual)
    width = x.shape[-1]
    variant = Variant(width, eps, x.dtype, weight.dtype, *(None if a is None else a.dtype for a in (bias, residual)))
    return LAYER_NORM.pick(backend, variant, Load.of(x.size // width))(x, weight, bias, eps, residual)


class Variant(NamedTuple):
    """What a kernel is compiled for."""

    width: int
    eps: float
    x: mx.Dtype
    weight: mx.Dtype
    bias: mx.Dtype | None
    residual: mx.Dtype | None

    def __str__(self) -> str:
        return f"{spelled(self.x)}, {self.width} wide{'' if self.residual is None else ', residual'}"


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
        if array is not None and array.dtype not in FLOATS:
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


def _sample(variant: Variant, load: Load | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    width, eps, *kinds = variant
    rows = 5 if load is None else load.tokens
    shapes = ((rows, width), (width,), (width,), (rows, width))
    x, weight, bias, residual = (
        None if kind is None else random(*shape, dtype=kind, seed=seed)
        for seed, (kind, shape) in enumerate(zip(kinds, shapes, strict=True))
    )
    return (x, weight, bias, eps, residual), {}


LAYER_NORM = Op("layer_norm", reference_layer_norm, lambda variant: {"built-in": fast_layer_norm}, _sample)
