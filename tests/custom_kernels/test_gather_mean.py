"""What `gather_mean` refuses; `test_twins.py` and the native kernel's tests say what it computes."""

import mlx.core as mx
import pytest

from custom_kernels import gather_mean
from custom_kernels.arrays import starts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": mx.zeros((4,))}, r"a table \[R, H\]"),
        ({"table": mx.zeros((4, 8), dtype=mx.int32)}, "a table of float32"),
        ({"input_ids": mx.zeros((3,))}, "input_ids as int32, got mlx.core.float32"),
        ({"input_ids": mx.zeros((3, 1), dtype=mx.int32)}, r"ids \[T\]"),
        ({"cu_seqlens": mx.array([0.0, 3.0])}, "cu_seqlens as int32"),
        ({"mapping": mx.zeros((4,))}, "mapping as int32"),
        ({"weights": mx.zeros((5,))}, "weights of one length"),
        ({"backend": "vulkan"}, "no backend 'vulkan'"),
    ],
)
def test_bad_input(change: dict[str, mx.array], message: str) -> None:
    good = {"table": mx.zeros((4, 8)), "input_ids": mx.zeros((3,), dtype=mx.int32), "cu_seqlens": starts(3)}
    assert gather_mean(**good).shape == (1, 8)
    with pytest.raises((ValueError, TypeError), match=message):
        gather_mean(**(good | change))
