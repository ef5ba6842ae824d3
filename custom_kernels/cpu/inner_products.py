"""The inner products of queries and some rows of a matrix, in float64."""

import numpy as np
import numpy.typing as npt

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, at, floats, ints
from custom_kernels.cpu.library import check, library


def inner_products(queries: Floats, rows: Floats, places: npt.NDArray[np.int32]) -> Floats:
    """The inner product of query i and row places[i, j], summed in float64 and rounded once.

    Equal rows have equal products, wherever they lie.

    Args:
        queries: [n, D].
        rows: [M, D]; only those that are asked for are read.
        places: [n, c] int32, within 0..M - 1, or negative for none.

    Returns:
        [n, c]; -infinity where the place is negative.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape; a place that there is not.
    """
    floats("inner_products", "queries", queries, (None, None))
    n, width = queries.shape
    floats("inner_products", "rows", rows, (None, width))
    if places.size == 0:
        return np.empty((n, places.shape[-1]), np.float32)
    ints("inner_products", "places", places, (n, None))
    if int(places.max()) >= len(rows):
        raise ValueError(f"inner_products needs places below {len(rows)}, got {places.max()}.")
    out = memory.empty(places.shape)
    check(library().mlx_embed_inner_products(at(queries), n, at(rows), width, at(places), places.shape[1], at(out)))
    return out
