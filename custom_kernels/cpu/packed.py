"""Index arithmetic of packed batches, by numpy."""

import numpy as np

from custom_kernels.cpu.arguments import Ints


def sequence_ids(cu_seqlens: Ints, total: int) -> Ints:
    """The sequence that each of the `total` tokens belongs to: int32 [T]."""
    del total  # the last of cu_seqlens; the MLX twin cannot read it there
    return np.repeat(np.arange(len(cu_seqlens) - 1, dtype=np.int32), np.diff(cu_seqlens))
