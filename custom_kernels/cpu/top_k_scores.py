"""The rows of a matrix that have the largest inner products with some queries."""

from typing import Any

import numpy as np
import numpy.typing as npt

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, at, floats
from custom_kernels.cpu.library import check, library

# Their numbers in kernels.h. numpy has no bfloat16: its bits come as uint16.
ROW_TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.uint16): 2, np.dtype(np.int8): 3}
# A row's number is given as a float32, which has every whole number up to this one.
MAX_ROWS = 2**24


def top_k_scores(
    queries: Floats,
    rows: npt.NDArray[Any],
    k: int,
    mask: npt.NDArray[np.uint8] | None = None,
    scales: Floats | None = None,
) -> Floats:
    """The k rows with the largest inner products with each query, best first, and of equal ones the first row first.

    Rows are read where they lie, a mapped file for example. A query has the same scores alone as in a batch.

    Args:
        queries: [n, D].
        rows: [M, D], of float32, float16, int8, or uint16 that are the bits of bfloat16.
        k: how many; at least 1.
        mask: uint8 [ceil(M / 8)], a bit a row, the least significant first: 0 leaves a row out. None: all count.
        scales: [M], by which the products of each row are multiplied.

    Returns:
        [n, 2, k]: the scores, and the numbers of the rows; -infinity and -1 where fewer rows count.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, a k below 1, or more than 2**24 rows.
    """
    floats("top_k_scores", "queries", queries, (None, None))
    n, width = queries.shape
    if not isinstance(rows, np.ndarray) or rows.dtype not in ROW_TYPES:
        found = rows.dtype if isinstance(rows, np.ndarray) else type(rows).__name__
        raise TypeError(f"top_k_scores takes rows of float32, float16, uint16 or int8, got {found}.")
    if rows.ndim != 2 or rows.shape[1] != width or not rows.flags.c_contiguous:
        raise ValueError(f"top_k_scores needs C-contiguous rows [M, {width}], got shape {rows.shape}.")
    count = rows.shape[0]
    if count > MAX_ROWS or k < 1:
        raise ValueError(f"top_k_scores needs a k from 1 up and at most 2**24 rows, got {k} and {count}.")
    if mask is not None and (mask.dtype != np.uint8 or mask.shape != (-(-count // 8),) or not mask.flags.c_contiguous):
        raise ValueError(f"top_k_scores needs a mask of uint8 [{-(-count // 8)}], got {mask.dtype} {mask.shape}.")
    if scales is not None:
        floats("top_k_scores", "scales", scales, (count,))
    out = memory.empty((n, 2, k))
    if not n:
        return out
    check(
        library().mlx_embed_top_k_scores(
            at(queries), n, at(rows), ROW_TYPES[rows.dtype], count, width, at(mask), at(scales), k, at(out)
        )
    )
    return out
