"""Arrays to the device and back."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import transfer


@pytest.mark.parametrize("sizes", [[1], [7, 0, 3], [70000, 300]])
def test_transfers_give_back_what_was_sent(sizes: list[int]) -> None:
    for _ in range(9):  # more than there are blocks in flight
        sent = [np.random.default_rng().integers(-(2**24), 2**24, size=n).astype(np.int32) for n in sizes]
        waits = [transfer.to_host(array.astype(mx.float32)) for array in transfer.to_device(*sent)]
        for array, wait in zip(sent, waits, strict=True):
            np.testing.assert_array_equal(wait(), array)
