"""Linear layers, and the activation that follows them in the same launch.

On an H100 MLX's own product in 16 bits, by cuBLAS, is about as fast by itself (`scripts/bench_gpu.py --sides
products`). But it writes a result that the next kernel reads again. In float32 the tensor cores are faster, of which it
makes no use. CUDA's kernels take weights that `lay_out_linear` has laid out.
Metal's is for few rows, whose product MLX may launch in two parts, before the activation and the residual in a launch
each.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import mlx.core as mx
import numpy as np

from custom_kernels import cuda, metal
from custom_kernels.arrays import random, spelled
from custom_kernels.backends import default_backend
from custom_kernels.choice.op import Arguments, Load, Op, typical_encoders
from custom_kernels.cuda import heuristics
from custom_kernels.cuda.products import laid_out_as, lay_out
from custom_kernels.metal.linear import ROWS, rows_of
from custom_kernels.ops.activate import ACTIVATIONS, activate, reference_activate
from custom_kernels.parameters import Linear


def lay_out_linear(weight: mx.array, then: Literal["activation", "norm"] | None = None) -> mx.array | None:
    """A weight [N, K] as this machine's kernels of products read it, or None where there are none.

    It is a second copy; where neither an activation nor a LayerNorm follows, it is wanted for narrower rows alone.
    """
    if default_backend() != "cuda":
        return None
    return lay_out(weight, heuristics.most_inputs(weight.dtype, weight.shape[0], then))


def linear(
    x: mx.array,
    layer: Linear,
    act: str | None = None,
    residual: mx.array | None = None,
) -> mx.array:
    """act(x W^T + b) + residual.

    Args:
        x: [T, K], a whole array and not a slice of one.
        layer: of a weight [N, K].
        act: a key of ACTIVATIONS, or None.
        residual: [T, N], likewise whole, or None.

    Returns:
        [T, N] of x's dtype; where x, the layer and the residual are of several, of the one that MLX makes of them.

    Raises:
        ValueError: shapes that do not fit, or an unknown activation.
    """
    check("linear", x, layer)
    if act is not None and act not in ACTIVATIONS:
        raise ValueError(f"linear has no {act!r}; it has {', '.join(ACTIVATIONS)}.")
    outputs, inputs = layer.weight.shape
    if residual is not None and residual.shape != (x.shape[0], outputs):
        raise ValueError(f"linear of x {x.shape} and weight {layer.weight.shape} got a residual {residual.shape}.")
    few = rows_of(x.shape[0]) if default_backend() == "metal" else None
    quicker_by_mlx = few is None and heuristics.builtin_linear_is_faster(
        x.dtype, x.shape[0], outputs, inputs, act, residual is not None
    )
    no_kernel = few is None and layer.laid_out is None
    if no_kernel or not x.size or quicker_by_mlx or of_many_dtypes(x, layer, residual):
        return builtin_linear(x, layer, act, residual)
    variant = Variant(x.dtype, outputs, inputs, act, layer.bias is not None, residual is not None, few)
    return LINEAR.pick(None, variant, Load.of(x.shape[0]))(x, layer, act, residual)


class Variant(NamedTuple):
    """What a kernel is compiled for."""

    dtype: mx.Dtype
    outputs: int
    inputs: int
    act: str | None
    has_bias: bool
    has_residual: bool = False
    rows: int | None = None

    def __str__(self) -> str:
        act = "" if self.act is None else f", {self.act}"
        residual = ", residual" if self.has_residual else ""
        rows = "" if self.rows is None else f", up to {self.rows} rows"
        return f"{spelled(self.dtype)}, {self.inputs} to {self.outputs} wide{act}{residual}{rows}"


def builtin_linear(x: mx.array, layer: Linear, act: str | None, residual: mx.array | None = None) -> mx.array:
    """The same by MLX's product, which reads a residual itself where it can, and the activation of this package."""
    if act is None and residual is not None and layer.bias is None:
        return mx.addmm(residual, x, layer.weight.T)
    y = layer.times(x)
    y = y if act is None else activate(y, act)
    return y if residual is None else y + residual


def reference_linear(x: mx.array, layer: Linear, act: str | None, residual: mx.array | None = None) -> mx.array:
    """The same from MLX's own ops alone."""
    y = layer.times(x)
    y = y if act is None else reference_activate(y, act)
    return y if residual is None else y + residual


def check(op: str, x: mx.array, layer: Linear) -> None:
    """Raise ValueError where x and the layer do not fit."""
    weight, bias, laid_out = layer
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"{op} takes x [T, K] and a weight [N, K], got {x.shape} and {weight.shape}.")
    outputs = weight.shape[0]
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"{op} of a layer with {outputs} outputs got a bias of shape {bias.shape}.")
    if laid_out is not None and (laid_out.shape, laid_out.dtype) != laid_out_as(weight):
        raise ValueError(
            f"{spelled(laid_out.dtype)} {laid_out.shape} is not lay_out_linear's of a weight {spelled(weight.dtype)} "
            f"{weight.shape}."
        )


def of_many_dtypes(x: mx.array, layer: Linear, *others: mx.array | None) -> bool:
    """Whether they are not all of one dtype."""
    return len({array.dtype for array in (x, layer.weight, layer.bias, *others) if array is not None}) > 1


def sample(
    rows: int, outputs: int, inputs: int, dtype: mx.Dtype, load: Load | None, has_bias: bool = True
) -> tuple[mx.array, Linear]:
    """x of so many rows, or of a typical number, and a layer."""
    x = random(rows if load is None else load.tokens, inputs, dtype=dtype, seed=1)
    weight = random(outputs, inputs, dtype=dtype, scale=inputs**-0.5, seed=2)
    bias = random(outputs, dtype=dtype, seed=3) if has_bias else None
    return x, Linear(weight, bias, lay_out(weight) if default_backend() == "cuda" else None)


def _sample(variant: Variant, load: Load | None) -> Arguments:
    dtype, outputs, inputs, act, has_bias, has_residual, most = variant
    if most is None:
        # Rows enough for every block of a kernel to have several tiles, of which the last is partly empty.
        x, layer = sample(3001, outputs, inputs, dtype, load, has_bias)
    else:
        x, layer = sample(most - 3 if load is None else most, outputs, inputs, dtype, None, has_bias)
    residual = random(x.shape[0], outputs, dtype=dtype, seed=4) if has_residual else None
    return (x, layer, act, residual), {}


def numpy_product(x: mx.array, layer: Linear) -> mx.array:
    """x W^T + b by numpy, in float32."""
    y = np.array(x) @ np.array(layer.weight).T
    return mx.array(y if layer.bias is None else y + np.array(layer.bias))


def _by_rows(x: mx.array, layer: Linear, act: str | None, residual: mx.array | None) -> mx.array:
    y = numpy_product(x, layer)
    y = y if act is None else reference_activate(y, act)
    return y if residual is None else y + residual


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for width, _, dtype, load in typical_encoders():
        wide = ((3 * width, width, None), (4 * width, width, "gelu"))
        if backend == "cuda" or (backend, dtype) == (None, mx.float32):
            for outputs, inputs, act in wide:
                yield Variant(dtype, outputs, inputs, act, True), load
        if backend == "metal" and load == Load.of(2):
            for most in ROWS:
                for outputs, inputs, act in (*wide, (width, width, None), (width, 4 * width, None)):
                    yield Variant(dtype, outputs, inputs, act, True, False, most), load


LINEAR = Op(
    "linear",
    {"metal": metal.linear, "cuda": cuda.linear},
    reference_linear,
    lambda variant: {"built-in": builtin_linear},
    _sample,
    _typical,
    by_rows=_by_rows,
    meanwhile=True,
)
