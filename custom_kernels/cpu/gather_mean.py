"""Rows of a table of tokens, averaged for each text."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, Ints, at, floats, ints
from custom_kernels.cpu.library import BAD_IDS, check_sequences, library

# Their numbers in kernels.h.
_TYPES = {"float32": 0, "float16": 1, "int8": 3}


class Table(NamedTuple):
    """What `gather_mean` looks tokens up in: see there."""

    rows: npt.NDArray[Any]
    mapping: Ints | None = None
    weights: Floats | None = None


def gather_mean(
    table: npt.NDArray[Any],
    input_ids: Ints,
    cu_seqlens: Ints,
    mapping: Ints | None = None,
    weights: Floats | None = None,
) -> Floats:
    """The average of the rows of each sequence's tokens, each times its token's weight.

    Args:
        table: [R, H] float32, float16 or int8.
        input_ids: [T] int32.
        cu_seqlens: [n + 1] int32, from 0 to T.
        mapping: [V] int32, the row of each token, below 0 of one that is passed over and not counted; None where they
            are the ids themselves.
        weights: [V], or None for 1 each.

    Returns:
        [n, H]; zeros for a sequence without tokens.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, an id or a row that there is not, or sequences
            that do not run from 0 to T.
    """
    if not isinstance(table, np.ndarray) or table.dtype.name not in _TYPES or table.ndim != 2 or not table.size:
        found = f"{table.dtype} {table.shape}" if isinstance(table, np.ndarray) else type(table).__name__
        raise TypeError(f"gather_mean takes a table [R, H] of {', '.join(_TYPES)}, got {found}.")
    if not table.flags.c_contiguous:
        raise ValueError("gather_mean needs a table that is C-contiguous; use numpy.ascontiguousarray.")
    total = input_ids.size if isinstance(input_ids, np.ndarray) else 0
    ints("gather_mean", "input_ids", input_ids, (total,))
    ints("gather_mean", "cu_seqlens", cu_seqlens, (None,))
    vocabulary = table.shape[0] if mapping is None else mapping.size
    if mapping is not None:
        ints("gather_mean", "mapping", mapping, (None,))
    if weights is not None:
        floats("gather_mean", "weights", weights, (vocabulary,))
    rows, width = table.shape
    count = cu_seqlens.size - 1
    out = memory.empty((count, width))
    status = library().mlx_embed_gather_mean(
        at(table),
        _TYPES[table.dtype.name],
        rows,
        width,
        at(mapping),
        at(weights),
        vocabulary,
        at(input_ids),
        at(cu_seqlens),
        count,
        total,
        at(out),
    )
    if status == BAD_IDS:
        raise ValueError(f"gather_mean got an id that is not within 0..{vocabulary - 1}, or has no row in the table.")
    check_sequences("gather_mean", status, total)
    return out
