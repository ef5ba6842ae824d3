"""The Metal positions, emulated."""

import mlx.core as mx
import pytest

from custom_kernels import metal
from tests.custom_kernels.conftest import starts
from tests.custom_kernels.metal.conftest import LENGTHS
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("lengths", [[1], [0, 0, 3], LENGTHS, [1] * 300])
def test_position_ids(lengths: list[int], seed: int) -> None:
    with emulated_metal(seed):
        found = metal.position_ids(starts(lengths), sum(lengths))
    assert found.dtype == mx.int32
    assert found.tolist() == [p for n in lengths for p in range(n)]
