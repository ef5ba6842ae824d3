"""Linear layers with the residual and its LayerNorm, in the same launch: see `linear`."""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx

from custom_kernels import cuda
from custom_kernels.arrays import random, spelled
from custom_kernels.choice.op import Arguments, Load, Op, typical_encoders
from custom_kernels.cuda import heuristics
from custom_kernels.ops.layer_norm import layer_norm, reference_layer_norm
from custom_kernels.ops.linear import check, linear, numpy_product, of_many_dtypes, sample
from custom_kernels.parameters import Linear


def output_norm(
    x: mx.array,
    layer: Linear,
    residual: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    eps: float,
) -> mx.array:
    """LayerNorm(x W^T + b + residual).

    Args:
        x: [T, K], a whole array and not a slice of one.
        layer: of a weight [N, K].
        residual: [T, N], likewise whole, of the dtype that `linear` gives.
        weight: [N], the LayerNorm's.
        bias: [N], the LayerNorm's, or None for no offset.
        eps: added to the variance.

    Returns:
        [T, N] of the residual's dtype.

    Raises:
        ValueError: shapes that do not fit, or a residual of another dtype.
    """
    check("output_norm", x, layer)
    outputs, inputs = layer.weight.shape
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None and array.shape != (outputs,):
            raise ValueError(f"output_norm of {outputs} outputs got a LayerNorm's {name} of shape {array.shape}.")
    if residual.shape != (x.shape[0], outputs):
        raise ValueError(f"output_norm of x {x.shape} and weight {layer.weight.shape} got a residual {residual.shape}.")
    complete = layer.laid_out is not None and layer.bias is not None and bias is not None
    alike = not of_many_dtypes(x, layer, residual, weight, bias)
    quicker = heuristics.builtin_norm_after_linear_is_faster(x.dtype, x.shape[0], outputs)
    if not (complete and alike and x.size) or quicker:
        return builtin_output_norm(x, layer, residual, weight, bias, eps)
    variant = Variant(x.dtype, outputs, inputs, eps)
    return OUTPUT_NORM.pick(None, variant, Load.of(x.shape[0]))(x, layer, residual, weight, bias, eps)


class Variant(NamedTuple):
    """What a kernel is compiled for, and may be wrong for."""

    dtype: mx.Dtype
    outputs: int
    inputs: int
    eps: float

    def __str__(self) -> str:
        return f"{spelled(self.dtype)}, {self.inputs} to {self.outputs} wide"


def builtin_output_norm(
    x: mx.array, layer: Linear, residual: mx.array, weight: mx.array, bias: mx.array | None, eps: float
) -> mx.array:
    """The same by the product and the LayerNorm as this package has them."""
    return layer_norm(linear(x, layer), weight, bias, eps, residual)


def reference_output_norm(
    x: mx.array, layer: Linear, residual: mx.array, weight: mx.array, bias: mx.array | None, eps: float
) -> mx.array:
    """The same from MLX's own ops alone."""
    return reference_layer_norm(layer.times(x), weight, bias, eps, residual)


def _sample(variant: Variant, load: Load | None) -> Arguments:
    dtype, outputs, inputs, eps = variant
    # Rows enough for every block of a kernel to have several tiles, of which the last is partly empty.
    x, layer = sample(20001, outputs, inputs, dtype, load)
    residual = random(x.shape[0], outputs, dtype=dtype, seed=4)
    weight, bias = (random(outputs, dtype=dtype, seed=seed) for seed in (5, 6))
    return (x, layer, residual, weight, bias, eps), {}


def _by_rows(
    x: mx.array, layer: Linear, residual: mx.array, weight: mx.array, bias: mx.array | None, eps: float
) -> mx.array:
    return reference_layer_norm(numpy_product(x, layer), weight, bias, eps, residual)


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for width, _, dtype, load in typical_encoders():
        if (backend, dtype) in (("cuda", mx.float16), (None, mx.float32)):
            yield Variant(dtype, width, width, 1e-12), load


OUTPUT_NORM = Op(
    "output_norm",
    {"cuda": cuda.output_norm},
    reference_output_norm,
    lambda variant: {"built-in": builtin_output_norm},
    _sample,
    _typical,
    by_rows=_by_rows,
    meanwhile=True,
)
