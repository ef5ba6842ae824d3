"""Mean pooling of a packed batch."""

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, Ints, at, floats, ints
from custom_kernels.cpu.library import check_sequences, library


def mean_pool(hidden: Floats, cu_seqlens: Ints, skip: int = 0, normalize: bool = False) -> Floats:
    """The average of each sequence's tokens but its first `skip` (all of them, where it has no more).

    Args:
        hidden: [T, H].
        cu_seqlens: [n + 1] int32, from 0 to T.
        skip: tokens of a prompt, left out.
        normalize: scale each row to length 1; a zero row stays zero.

    Returns:
        [n, H]; zeros for an empty sequence.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or sequences that do not run from 0 to T.
    """
    floats("mean_pool", "hidden", hidden, (None, None))
    ints("mean_pool", "cu_seqlens", cu_seqlens, (None,))
    if skip < 0:
        raise ValueError(f"mean_pool needs a skip of at least 0, got {skip}.")
    total, width = hidden.shape
    count = cu_seqlens.size - 1
    out = memory.empty((count, width))
    status = library().mlx_embed_mean_pool(at(hidden), at(cu_seqlens), count, total, width, skip, normalize, at(out))
    check_sequences("mean_pool", status, total)
    return out
