"""Positions of packed tokens, on every back end that this machine has."""

import mlx.core as mx
import pytest

from custom_kernels import position_ids
from tests.custom_kernels.conftest import BATCHES, present, starts


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("backend", present("position_ids"))
def test_position_ids(backend: str, batch: str) -> None:
    found = position_ids(starts(BATCHES[batch]), sum(BATCHES[batch]), backend=backend)
    assert found.dtype == mx.int32
    assert found.tolist() == [p for n in BATCHES[batch] for p in range(n)]


@pytest.mark.parametrize("bad", [mx.zeros((2,)), mx.zeros((2, 1), dtype=mx.int32), mx.zeros((0,), dtype=mx.int32)])
def test_bad_position_input(bad: mx.array) -> None:
    with pytest.raises(ValueError, match="cu_seqlens int32"):
        position_ids(bad, 4)
