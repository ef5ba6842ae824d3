"""Linear layers with what follows them: an activation, or the residual and its LayerNorm, in the same launch.

On an H100 MLX's own product, by cuBLAS, is no slower by itself (`scripts/bench_gpu.py --sides products`). But it writes
a result that the next kernel reads again, and its calls take the host longer than a kernel's launch. The kernels take
weights that `pack_linear` has laid out.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from custom_kernels.activation import activate, reference_activate
from custom_kernels.backends import Load, Op, default_backend, random
from custom_kernels.layer_norm import layer_norm, reference_layer_norm

# Wider rows do not fit beside each other into a multiprocessor's shared memory.
MAX_PACKED_INPUTS = 768
# Rows wider than the first leave little of it for the weights, and so many of them are quicker by cuBLAS, unless that
# needs another launch for an activation.
NARROW, MANY = 384, 2**15
# Outputs whose rows `output_norm` has in registers.
NORM_OUTPUTS = (256, 384)


def pack_linear(weight: mx.array) -> mx.array | None:
    """A weight [N, K] as the kernels of `linear` and `output_norm` read it: [K / 64, N, 64], of its dtype.

    Each block of 64 columns is one piece, in which the 8 chunks of 8 columns of row r are in the order that r % 8
    says (the tensor cores' 128-byte swizzle), and each 32 rows in the order 0, 1, 8, 9, 16, 17, 24, 25, 2, 3, ...

    None where no kernel of this machine wants it: they are for Hopper, and 16 bits.
    """
    if default_backend() != "cuda" or mx.device_info()["architecture"] != "sm_90" or weight.dtype == mx.float32:
        return None
    outputs, inputs = weight.shape
    if inputs % 64 or inputs > MAX_PACKED_INPUTS or outputs % 32:
        return None
    rows = np.array(weight.view(mx.uint16)).reshape(outputs // 32, 4, 4, 2, inputs // 64, 8, 8)
    rows = rows.transpose(4, 0, 2, 1, 3, 5, 6).reshape(inputs // 64, outputs // 8, 8, 8, 8)
    place = np.arange(8)
    swizzled = rows[:, :, place[:, None], place[:, None] ^ place]
    packed = mx.array(swizzled.reshape(inputs // 64, outputs, 64)).view(weight.dtype)
    mx.eval(packed)  # or every graph would do it again
    return packed


def linear(
    x: mx.array, weight: mx.array, bias: mx.array | None, act: str | None = None, packed: mx.array | None = None
) -> mx.array:
    """act(x W^T + b).

    Args:
        x: [T, K], a whole array and not a slice of one.
        weight: [N, K].
        bias: [N], likewise whole, or None.
        act: a key of ACTIVATIONS, or None.
        packed: `pack_linear` of the weight; without it no kernel runs but the activation's.

    Returns:
        [T, N] of x's dtype.

    Raises:
        ValueError: shapes that do not fit, or an unknown activation.
    """
    _check(x, weight, packed, {"bias": bias})
    outputs, inputs = weight.shape
    quicker_by_mlx = act is None and inputs > NARROW and x.shape[0] >= MANY
    if packed is None or not x.size or quicker_by_mlx or _of_many_dtypes(x, weight, bias, packed):
        return builtin_linear(x, weight, bias, act, packed)
    variant = LinearVariant(x.dtype, outputs, inputs, act, bias is not None)
    return LINEAR.pick(None, variant, Load.of(x.shape[0]))(x, weight, bias, act, packed)


def output_norm(
    x: mx.array,
    weight: mx.array,
    bias: mx.array,
    residual: mx.array,
    norm_weight: mx.array,
    norm_bias: mx.array,
    eps: float,
    packed: mx.array | None = None,
) -> mx.array:
    """LayerNorm(x W^T + b + residual).

    Args:
        x: [T, K], a whole array and not a slice of one.
        weight: [N, K].
        bias: [N].
        residual: [T, N], likewise whole.
        norm_weight: [N], the LayerNorm's.
        norm_bias: [N], the LayerNorm's.
        eps: added to the variance.
        packed: `pack_linear` of the weight; without it no kernel runs but the LayerNorm's.

    Returns:
        [T, N] of x's dtype.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(x, weight, packed, {"bias": bias, "norm_weight": norm_weight, "norm_bias": norm_bias})
    if residual.shape != (x.shape[0], weight.shape[0]):
        raise ValueError(f"output_norm of x {x.shape} and weight {weight.shape} got a residual {residual.shape}.")
    arrays = (weight, bias, residual, norm_weight, norm_bias)
    outputs, inputs = weight.shape
    if packed is None or not x.size or outputs not in NORM_OUTPUTS or _of_many_dtypes(x, *arrays, packed):
        return builtin_output_norm(x, *arrays, eps, packed)
    variant = OutputNormVariant(x.dtype, outputs, inputs, eps)
    return OUTPUT_NORM.pick(None, variant, Load.of(x.shape[0]))(x, *arrays, eps, packed)


class LinearVariant(NamedTuple):
    """What a kernel is compiled for."""

    dtype: mx.Dtype
    outputs: int
    inputs: int
    act: str | None
    has_bias: bool


class OutputNormVariant(NamedTuple):
    """What a kernel is compiled for, and may be wrong for."""

    dtype: mx.Dtype
    outputs: int
    inputs: int
    eps: float


def builtin_linear(
    x: mx.array, weight: mx.array, bias: mx.array | None, act: str | None, packed: mx.array | None = None
) -> mx.array:
    """The same by MLX's product, and the activation as this package has it."""
    y = _product(x, weight, bias)
    return y if act is None else activate(y, act)


def reference_linear(
    x: mx.array, weight: mx.array, bias: mx.array | None, act: str | None, packed: mx.array | None = None
) -> mx.array:
    """The same from MLX's own ops alone."""
    y = _product(x, weight, bias)
    return y if act is None else reference_activate(y, act)


def builtin_output_norm(
    x: mx.array,
    weight: mx.array,
    bias: mx.array,
    residual: mx.array,
    norm_weight: mx.array,
    norm_bias: mx.array,
    eps: float,
    packed: mx.array | None = None,
) -> mx.array:
    """The same by the product and the LayerNorm as this package has them."""
    return layer_norm(linear(x, weight, bias, None, packed), norm_weight, norm_bias, eps, residual)


def reference_output_norm(
    x: mx.array,
    weight: mx.array,
    bias: mx.array,
    residual: mx.array,
    norm_weight: mx.array,
    norm_bias: mx.array,
    eps: float,
    packed: mx.array | None = None,
) -> mx.array:
    """The same from MLX's own ops alone."""
    return reference_layer_norm(_product(x, weight, bias), norm_weight, norm_bias, eps, residual)


def _check(x: mx.array, weight: mx.array, packed: mx.array | None, parameters: Mapping[str, mx.array | None]) -> None:
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"A linear layer takes x [T, K] and a weight [N, K], got {x.shape} and {weight.shape}.")
    outputs, inputs = weight.shape
    for name, array in parameters.items():
        if array is not None and array.shape != (outputs,):
            raise ValueError(f"A linear layer of {outputs} outputs got a {name} of shape {array.shape}.")
    if packed is not None and packed.shape != (inputs // 64, outputs, 64):
        raise ValueError(f"{packed.shape} is not the shape of pack_linear's of a weight {weight.shape}.")


def _of_many_dtypes(*arrays: mx.array | None) -> bool:
    return len({array.dtype for array in arrays if array is not None}) > 1


def _product(x: mx.array, weight: mx.array, bias: mx.array | None) -> mx.array:
    return x @ weight.T if bias is None else mx.addmm(bias, x, weight.T)


def _weights(
    rows: int, outputs: int, inputs: int, dtype: mx.Dtype, load: Load | None
) -> tuple[mx.array, mx.array, mx.array, mx.array | None]:
    """x, weight, bias and the packed weight of a sample."""
    x = random(rows if load is None else load.tokens, inputs, dtype=dtype, seed=1)
    weight = random(outputs, inputs, dtype=dtype, scale=inputs**-0.5, seed=2)
    return x, weight, random(outputs, dtype=dtype, seed=3), pack_linear(weight)


# The samples' rows are enough for every block of a kernel to have several tiles, of which the last is partly empty.
def _sample_linear(variant: LinearVariant, load: Load | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x, weight, bias, packed = _weights(3001, variant.outputs, variant.inputs, variant.dtype, load)
    return (x, weight, bias if variant.has_bias else None, variant.act, packed), {}


def _sample_output_norm(variant: OutputNormVariant, load: Load | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    dtype, outputs, inputs, eps = variant
    x, weight, bias, packed = _weights(20001, outputs, inputs, dtype, load)
    residual = random(x.shape[0], outputs, dtype=dtype, seed=4)
    norm_weight, norm_bias = (random(outputs, dtype=dtype, seed=seed) for seed in (5, 6))
    return (x, weight, bias, residual, norm_weight, norm_bias, eps, packed), {}


LINEAR = Op("linear", reference_linear, lambda variant: {"built-in": builtin_linear}, _sample_linear)
OUTPUT_NORM = Op(
    "output_norm", reference_output_norm, lambda variant: {"built-in": builtin_output_norm}, _sample_output_norm
)
