"""LayerNorm over the last axis, with an optional residual added first.

    y = (h - mean(h)) / sqrt(var(h) + eps) * weight + bias,   h = x + residual

The kernels and the reference keep h, the statistics and the affine step in float32 and round once, to x's dtype. Their
variance is that of the centred values (two passes, never E[h^2] - mean^2), so rows far from zero stay exact. MLX's
built-in gets h and the parameters in x's dtype.
"""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx

from custom_kernels import cuda, metal
from custom_kernels.arrays import FLOATS, MAX_WIDTH, random, spelled
from custom_kernels.backends import KERNEL_BACKENDS
from custom_kernels.choice.op import Arguments, Load, Op, typical_encoders
from custom_kernels.cuda import heuristics

BACKENDS = ("fast", "reference", *KERNEL_BACKENDS)


def layer_norm(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    eps: float,
    residual: mx.array | None = None,
    *,
    in_graph: bool = False,
    backend: str | None = None,
) -> mx.array:
    """Normalise `x + residual` over its last axis.

    Args:
        x: [..., width], float32, float16 or bfloat16.
        weight: [width], any of these dtypes.
        bias: [width], or None for no offset.
        eps: added to the variance.
        residual: an array of x's shape and dtype, added to x before normalising.
        in_graph: whether other ops of the same evaluation hide what it costs to launch one more, as a model's do. It
            decides on CUDA where there is no residual, and changes no result.
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
    if backend is None and residual is None and _builtin_is_faster(x, weight, bias, in_graph):
        try:  # which checks shapes itself, and by itself is over before the checks below are
            return mx.fast.layer_norm(x, weight, bias, eps)
        except ValueError:
            pass
    _check(x, weight, bias, residual, backend)
    if backend == "reference":
        return reference_layer_norm(x, weight, bias, eps, residual)
    size, width = x.size, x.shape[-1]
    if size == 0:
        return x
    if backend == "fast" or width > MAX_WIDTH:
        return fast_layer_norm(x, weight, bias, eps, residual)
    offsets, added = (None if bias is None else bias.dtype), (None if residual is None else residual.dtype)
    variant = Variant(width, eps, x.dtype, weight.dtype, offsets, added)
    return LAYER_NORM.pick(backend, variant, Load.of(size // width))(x, weight, bias, eps, residual)


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


def _builtin_is_faster(x: mx.array, weight: mx.array, bias: mx.array | None, in_graph: bool) -> bool:
    dtype = x.dtype
    return (
        weight.dtype == dtype
        and (bias is None or bias.dtype == dtype)
        and dtype in FLOATS
        and mx.cuda.is_available()
        and heuristics.builtin_norm_is_faster(x.size, in_graph)
    )


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
    if backend in KERNEL_BACKENDS and width > MAX_WIDTH:
        raise ValueError(f"The {backend} layer_norm kernel takes rows up to {MAX_WIDTH} wide, got {width}.")


def _sample(variant: Variant, load: Load | None) -> Arguments:
    width, eps, *kinds = variant
    rows = 5 if load is None else load.tokens
    shapes = ((rows, width), (width,), (width,), (rows, width))
    x, weight, bias, residual = (
        None if kind is None else random(*shape, dtype=kind, seed=seed)
        for seed, (kind, shape) in enumerate(zip(kinds, shapes, strict=True))
    )
    return (x, weight, bias, eps, residual), {}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for width, _, dtype, load in typical_encoders():
        for residual in (dtype, None):
            yield Variant(width, 1e-12, dtype, dtype, dtype, residual), load


LAYER_NORM = Op(
    "layer_norm",
    {"metal": metal.layer_norm, "cuda": cuda.layer_norm},
    reference_layer_norm,
    lambda variant: {"built-in": fast_layer_norm},
    _sample,
    _typical,
)
