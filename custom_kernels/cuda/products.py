"""Products on Hopper's tensor cores: how weights are laid out for them, and the launch of kernels made of them."""

from collections.abc import Mapping

import mlx.core as mx
import numpy as np

from custom_kernels.cuda import wgmma
from custom_kernels.cuda.ahead import rehearsed
from custom_kernels.cuda.driver import multiprocessors
from custom_kernels.cuda.heuristics import HOPPER_MEMORY, RESERVED, ProductTiles
from custom_kernels.cuda.launch import Scalar, architecture, launch_all
from custom_kernels.cuda.tensor_map import row_pieces


def lay_out(weight: mx.array, most: int) -> mx.array | None:
    """A weight [N, K] as the kernels of products read it: [K / 64, N, 64], of its dtype.

    Each block of 64 columns is one piece, in which the 8 chunks of 8 columns of row r are in the order that r % 8
    says (the tensor cores' 128-byte swizzle), and each 32 rows in the order 0, 1, 8, 9, 16, 17, 24, 25, 2, 3, ...

    None where no kernel wants it: they are for Hopper, 16 bits, and at most so many inputs.
    """
    outputs, inputs = weight.shape
    if mx.device_info()["architecture"] != "sm_90" or weight.dtype == mx.float32:
        return None
    if inputs % 64 or inputs > most or outputs % 32:
        return None
    if rehearsed() is not None:
        return mx.zeros((inputs // 64, outputs, 64), dtype=weight.dtype)
    rows = np.array(weight.view(mx.uint16)).reshape(outputs // 32, 4, 4, 2, inputs // 64, 8, 8)
    rows = rows.transpose(4, 0, 2, 1, 3, 5, 6).reshape(inputs // 64, outputs // 8, 8, 8, 8)
    place = np.arange(8)
    swizzled = rows[:, :, place[:, None], place[:, None] ^ place]
    laid_out = mx.array(swizzled.reshape(inputs // 64, outputs, 64)).view(weight.dtype)
    mx.eval(laid_out)  # or every graph would do it again
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
    if laid_out is None or architecture() != "sm_90":
        raise NotImplementedError("The CUDA kernels of products are for Hopper's tensor cores, and laid out weights.")
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
