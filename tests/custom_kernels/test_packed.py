"""Packed batches: index arithmetic against plain lists."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu, position_ids
from custom_kernels.packed import pad, sequence_ids, unpad
from tests.custom_kernels.conftest import starts

LENGTHS = [[1], [5], [4, 4, 4], [1, 7, 2], [0, 3, 0, 0, 5, 0], [512, 1], [31, 32, 33], [64] * 3 + [1] * 9]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_sequence_and_position_ids(lengths: list[int]) -> None:
    cu_seqlens = starts(lengths)
    total = sum(lengths)
    assert sequence_ids(cu_seqlens, total).tolist() == [i for i, n in enumerate(lengths) for _ in range(n)]
    assert position_ids(cu_seqlens, total).tolist() == [p for n in lengths for p in range(n)]
    native = np.array(cu_seqlens)
    assert cpu.sequence_ids(native, total).tolist() == sequence_ids(cu_seqlens, total).tolist()
    assert cpu.position_ids(native, total).tolist() == position_ids(cu_seqlens, total).tolist()
    assert {cpu.sequence_ids(native, total).dtype, cpu.position_ids(native, total).dtype} == {np.dtype(np.int32)}


@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_pad_and_unpad_are_inverse(lengths: list[int], extra: int) -> None:
    cu_seqlens, total = starts(lengths), sum(lengths)
    x = mx.arange(2 * total).reshape(total, 2)
    block, valid = pad(x, cu_seqlens, max(lengths) + extra)
    assert block.shape == (len(lengths), max(lengths) + extra, 2)
    if valid is not None:
        assert valid.sum(axis=1).tolist() == lengths
    assert unpad(block, cu_seqlens, total).tolist() == x.tolist()
