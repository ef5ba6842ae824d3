"""Products on Hopper's tensor cores: how weights are laid out for them, and the launch of kernels made of them."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from custom_kernels.cuda import wgmma
from custom_kernels.cuda.activations import ACTIVATIONS
from custom_kernels.cuda.ahead import rehearsed
from custom_kernels.cuda.driver import multiprocessors
from custom_kernels.cuda.heuristics import HOPPER_MEMORY, RESERVED, ProductTiles, float_columns
from custom_kernels.cuda.launch import Scalar, architecture, launch_all
from custom_kernels.cuda.tensor_map import row_pieces
from custom_kernels.parameters import Linear

# By what power of two a float32 weight is multiplied before it becomes two float16. What is below 2^-25 then is lost, a
# small part of matrices that have some number of at least 2^-LEAST.
SHIFT, LEAST = 10, 8


def lay_out(weight: mx.array, most: int | None = None) -> mx.array | None:
    """A weight [N, K] as the kernels of products read it: [K / 64, N, 64], of its dtype.

    Each block of 64 columns is one piece, in which the 8 chunks of 8 columns of row r are in the order that r % 8
    says (the tensor cores' 128-byte swizzle), and each 32 rows in the order 0, 1, 8, 9, 16, 17, 24, 25, 2, 3, ...

    Of float32 it is [2 K / 64, N, 64], the bits of float16 as uint16: 2^SHIFT times the weight is the sum of the first
    half and the second, in both of which each 16 columns are in the order 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, ...

    None where no kernel wants it: they are for Hopper, and at most so many inputs, and in float32 for some numbers of
    outputs, and for weights whose greatest is at least 2^-LEAST and 2^SHIFT times within float16.
    """
    outputs, inputs = weight.shape
    if mx.device_info()["architecture"] != "sm_90" or inputs % 64 or outputs % 32 or (most and inputs > most):
        return None
    double = weight.dtype == mx.float32
    if double and float_columns(outputs) is None:
        return None
    if rehearsed() is not None:
        shape, dtype = laid_out_as(weight)
        return mx.zeros(shape, dtype=dtype)
    parts = _two_halves(weight) if double else [weight]
    if parts is None:
        return None
    pieces = np.concatenate([_in_pieces(np.array(part.view(mx.uint16))) for part in parts])
    laid_out = mx.array(pieces) if double else mx.array(pieces).view(weight.dtype)
    mx.eval(laid_out)  # or every graph would do it again
    return laid_out


def _two_halves(weight: mx.array) -> list[mx.array] | None:
    """Two float16 whose sum is 2^SHIFT times the weight, or None where float16 does not have its numbers."""
    outputs, inputs = weight.shape
    with mx.stream(mx.cpu):  # where MLX has nothing to compile for it
        scaled = weight * 2.0**SHIFT
        greatest = float(mx.abs(scaled).max())
        if not 2.0 ** (SHIFT - LEAST) <= greatest <= 65504:  # float16's greatest
            return None
        scaled = scaled.reshape(outputs, inputs // 16, 4, 2, 2).swapaxes(2, 3).reshape(outputs, inputs)
        first = scaled.astype(mx.float16)
        return [first, (scaled - first.astype(mx.float32)).astype(mx.float16)]


def _in_pieces(weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """16-bit numbers as `lay_out` orders them."""
    outputs, inputs = weight.shape
    chunks = np.ascontiguousarray(weight).view("V16").reshape(outputs // 32, 4, 4, 2, inputs // 64, 8)
    chunks = chunks.transpose(4, 0, 2, 1, 3, 5).reshape(inputs // 64, outputs // 8, 8, 8)
    place = np.arange(8)
    return chunks[:, :, place[:, None], place[:, None] ^ place].reshape(inputs // 64, outputs, 8).view(np.uint16)


def laid_out_as(weight: mx.array) -> tuple[tuple[int, ...], mx.Dtype]:
    """Shape and dtype of what `lay_out` makes of a weight."""
    outputs, inputs = weight.shape
    if weight.dtype == mx.float32:
        return (inputs // 64 * 2, outputs, 64), mx.uint16
    return (inputs // 64, outputs, 64), weight.dtype


def given(array: mx.array | None, x: mx.array) -> mx.array:
    """A bias or a residual; without one the kernels still have the parameter, and never read it."""
    return x if array is None else array


def after(layer: Linear, act: str | None) -> dict[str, int]:
    """What is compiled in of what follows the product."""
    return {"ACTIVATION": -1 if act is None else ACTIVATIONS.index(act), "HAS_BIAS": layer.bias is not None}


def for_hopper(laid_out: mx.array | None) -> mx.array:
    """The laid out weight.

    Raises:
        NotImplementedError: there is none, or this is another GPU.
    """
    if laid_out is None or architecture() != "sm_90":
        raise NotImplementedError("The CUDA kernels of products are for Hopper's tensor cores, and laid out weights.")
    return laid_out


def launch_product(
    name: str,
    x: mx.array,
    laid_out: mx.array | None,
    others: list[mx.array],
    scalars: list[Scalar],
    tiles: ProductTiles,
    constants: Mapping[str, int],
    width: int | None = None,
    parameters: int = 0,
) -> mx.array:
    """One launch of a kernel made of `shared/products.cuh`, on x, the laid out weight and `others`.

    Returns [T, width], or [T, N] without a width. Each block keeps `parameters` floats of every output at hand.
    """
    laid_out = for_hopper(laid_out)
    if laid_out.dtype != x.dtype:
        raise NotImplementedError(f"The CUDA kernel of {name} is of 16 bits.")
    depths, outputs, _ = laid_out.shape
    groups, columns, streamed, cluster, shared = tiles
    if outputs % columns:
        raise NotImplementedError(f"The CUDA kernel of this product takes multiples of {columns} outputs.")
    rows = groups * 64 * 128  # bytes of 64 columns of them
    kept = RESERVED + (0 if streamed else depths * rows) + parameters * outputs * 4
    wide = outputs // cluster if shared else columns
    stage = wide * 128 + (rows if streamed else 0)
    stages = min((HOPPER_MEMORY - kept) // stage, 8)
    if stages < 3:
        raise NotImplementedError(f"Rows {depths * 64} wide do not fit into the CUDA kernels of products.")
    heights, spans = -(-x.shape[0] // (groups * 64 * (1 if shared else cluster))), outputs // columns
    blocks = min(max(multiprocessors() // cluster, 1), heights * (1 if parameters else spans)) * cluster
    inputs = [x, laid_out, *others]
    results: list[tuple[tuple[int, ...], mx.Dtype]] = [((x.shape[0], outputs if width is None else width), x.dtype)]
    if streamed:  # and each block's own map of x
        inputs.append(row_pieces(depths * 64, 64 if shared else groups * 64))
        results.append(((blocks, 32), mx.uint32))
    return launch_all(
        name,
        inputs,
        scalars,
        (blocks, (groups + 1) * 128),
        results,
        {"T": x.dtype},
        {
            "BFLOAT": laid_out.dtype == mx.bfloat16,
            "K": depths * 64,
            "N": outputs,
            "COLUMNS": columns,
            "PLACE_COLUMNS": wide,
            "STAGES": stages,
            "GROUPS": groups,
            "STREAMED": streamed,
            "CLUSTER": cluster,
            **constants,
        },
        {"WGMMA": wgmma.of_memory(columns, laid_out.dtype)},
        kept + stages * stage,
    )[0]
