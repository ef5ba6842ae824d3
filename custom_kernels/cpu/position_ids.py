"""Each token's place in its own sequence, by numpy."""

import numpy as np

from custom_kernels.cpu.arguments import Ints


def position_ids(cu_seqlens: Ints, total: int) -> Ints:
    """Each token's place in its own sequence, counted from 0: int32 [T]."""
    return np.arange(total, dtype=np.int32) - np.repeat(cu_seqlens[:-1], np.diff(cu_seqlens))
