"""RMSNorm (Zhang and Sennrich, 2019) over the last axis, with an optional residual added behind it.

    y = x / sqrt(mean(x^2) + eps) * (offset + weight) + residual

Every form keeps all of it in float32 and rounds once, to x's dtype. In float16 a sum beyond its range becomes the
largest that it has, as in Gemma's own code, whose residuals go that far.
"""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx

from custom_kernels import cuda, metal
from custom_kernels.arrays import FLOATS, MAX_WIDTH, random, spelled
from custom_kernels.backends import KERNEL_BACKENDS, default_backend
from custom_kernels.choice.op import Arguments, Load, Op, typical_encoders
from custom_kernels.cuda import heuristics

BACKENDS = ("fast", "reference", *KERNEL_BACKENDS)
LARGEST = 65504.0


def rms_norm(
    x: mx.array,
    weight: mx.array,
    eps: float,
    residual: mx.array | None = None,
    offset: float = 0.0,
    *,
    backend: str | None = None,
) -> mx.array:
    """Normalise x over its last axis and add `residual`.

    Args:
        x: [..., width], float32, float16 or bfloat16.
        weight: [width], any of these dtypes.
        eps: added to the mean of squares.
        residual: an array of x's shape and dtype, added to what was normalised, or None.
        offset: added to the weight; 1 in Gemma.
        backend: as in `layer_norm`; "fast" is MLX's built-in `mx.fast.rms_norm`.

    Returns:
        [..., width] of x's dtype.

    Raises:
        ValueError: shapes that do not fit, an unknown back end, or a row too wide for a named kernel.
        TypeError: a dtype that is not one of the three.
        RuntimeError: a named back end that this machine does not have.
    """
    _check(x, weight, residual, backend)
    if backend == "reference":
        return reference_rms_norm(x, weight, eps, residual, offset)
    if x.size == 0:
        return x
    on_cuda = backend is None and default_backend() == "cuda"
    builtin = on_cuda and heuristics.builtin_rms_norm_is_faster(offset, residual is not None)
    if backend == "fast" or builtin or x.shape[-1] > MAX_WIDTH:
        return fast_rms_norm(x, weight, eps, residual, offset)
    width = x.shape[-1]
    variant = Variant(width, eps, x.dtype, weight.dtype, None if residual is None else residual.dtype, offset)
    return RMS_NORM.pick(backend, variant, Load.of(x.size // width))(x, weight, eps, residual, offset)


class Variant(NamedTuple):
    """What a kernel is compiled for."""

    width: int
    eps: float
    x: mx.Dtype
    weight: mx.Dtype
    residual: mx.Dtype | None
    offset: float

    def __str__(self) -> str:
        return f"{spelled(self.x)}, {self.width} wide{'' if self.residual is None else ', residual'}"


def reference_rms_norm(
    x: mx.array, weight: mx.array, eps: float, residual: mx.array | None = None, offset: float = 0.0
) -> mx.array:
    """The same from composed MLX ops: readable, and runs anywhere."""
    h = x.astype(mx.float32)
    y = h * mx.rsqrt(mx.square(h).mean(axis=-1, keepdims=True) + eps) * (offset + weight.astype(mx.float32))
    return y.astype(x.dtype) if residual is None else _within(y + residual.astype(mx.float32), x.dtype)


def fast_rms_norm(
    x: mx.array, weight: mx.array, eps: float, residual: mx.array | None = None, offset: float = 0.0
) -> mx.array:
    """The same by `mx.fast.rms_norm`; the weight takes x's dtype, since MLX's result has their common dtype."""
    if offset:
        weight = offset + weight.astype(mx.float32)
    y = mx.fast.rms_norm(x, weight.astype(x.dtype), eps)
    if residual is None:
        return y
    if x.dtype != mx.float16:
        return y + residual
    return _within(y.astype(mx.float32) + residual.astype(mx.float32), x.dtype)


def _within(y: mx.array, dtype: mx.Dtype) -> mx.array:
    return (mx.clip(y, -LARGEST, LARGEST) if dtype == mx.float16 else y).astype(dtype)


def _check(x: mx.array, weight: mx.array, residual: mx.array | None, backend: str | None) -> None:
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"rms_norm has no backend {backend!r}; choose one of {', '.join(BACKENDS)}, or None.")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"rms_norm normalises the last axis, but x has shape {tuple(x.shape)}.")
    width = x.shape[-1]
    for name, array in (("x", x), ("weight", weight), ("residual", residual)):
        if array is not None and array.dtype not in FLOATS:
            raise TypeError(f"rms_norm takes float32, float16 or bfloat16, but {name} is {array.dtype}.")
    if weight.shape != (width,):
        raise ValueError(f"rms_norm of rows {width} wide needs weight of shape ({width},), got {weight.shape}.")
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(
            f"rms_norm needs a residual like x, {x.dtype} {tuple(x.shape)}, "
            f"got {residual.dtype} {tuple(residual.shape)}."
        )
    if backend in KERNEL_BACKENDS and width > MAX_WIDTH:
        raise ValueError(f"The {backend} rms_norm kernel takes rows up to {MAX_WIDTH} wide, got {width}.")


def _sample(variant: Variant, load: Load | None) -> Arguments:
    width, eps, dtype, weight_dtype, residual_dtype, offset = variant
    rows = 5 if load is None else load.tokens
    x, weight = random(rows, width, dtype=dtype), random(width, dtype=weight_dtype, seed=1)
    residual = None if residual_dtype is None else random(rows, width, dtype=residual_dtype, seed=2)
    return (x, weight, eps, residual, offset), {}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for _, _, dtype, load in typical_encoders():
        yield Variant(1024, 1e-6, dtype, dtype, None, 0.0), load  # Qwen3-Embedding-0.6B
        yield Variant(768, 1e-6, dtype, dtype, dtype, 1.0), load  # EmbeddingGemma


RMS_NORM = Op(
    "rms_norm",
    {"metal": metal.rms_norm, "cuda": cuda.rms_norm},
    reference_rms_norm,
    lambda variant: {"built-in": fast_rms_norm},
    _sample,
    _typical,
)
