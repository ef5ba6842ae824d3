"""The embedding layer: rows looked up, summed and normalised."""

import ctypes
from collections.abc import Sequence

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, Ints, at, floats, ints, norm_parameters
from custom_kernels.cpu.library import BAD_IDS, check, library

MAX_LOOKUPS = 8


def embedding_norm(
    lookups: Sequence[tuple[Floats, Ints]], weight: Floats | None, bias: Floats | None, eps: float
) -> Floats:
    """The sum of rows looked up in tables, then LayerNorm.

    Args:
        lookups: at most 8 pairs of a table [V, H] and ids [T] int32 into it.
        weight: [H], or None for the sum alone.
        bias: [H], or None for no offset.
        eps: added to the variance.

    Returns:
        [T, H].

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or an id outside its table.
    """
    if not 1 <= len(lookups) <= MAX_LOOKUPS:
        raise ValueError(f"embedding_norm takes 1 to {MAX_LOOKUPS} lookups, got {len(lookups)}.")
    width, rows = lookups[0][0].shape[-1], lookups[0][1].size
    if width == 0:
        raise ValueError("embedding_norm needs tables with at least one column.")
    for table, ids in lookups:
        floats("embedding_norm", "table", table, (None, width))
        ints("embedding_norm", "ids", ids, (rows,))
    norm_parameters("embedding_norm", weight, bias, width)
    out = memory.empty((rows, width))
    count = len(lookups)
    status = library().mlx_embed_embedding_norm(
        (ctypes.c_void_p * count)(*(at(table) for table, _ in lookups)),
        (ctypes.c_int64 * count)(*(table.shape[0] for table, _ in lookups)),
        (ctypes.c_void_p * count)(*(at(ids) for _, ids in lookups)),
        count,
        at(weight),
        at(bias),
        eps,
        rows,
        width,
        at(out),
    )
    if status == BAD_IDS:
        raise ValueError("embedding_norm got an id that is not a row of its table.")
    check(status)
    return out
