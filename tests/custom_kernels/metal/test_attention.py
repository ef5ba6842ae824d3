"""The Metal attention, emulated, against float64."""

import re
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import metal
from tests.custom_kernels.conftest import exact, exact_attention, starts
from tests.custom_kernels.metal.conftest import LENGTHS, ROUNDING, check, normal
from tests.metal.emulation import emulated_metal, unavailable
from tests.metal.launches import function

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.parametrize(
    ("lengths", "heads", "dim", "dtype", "with_bias", "window", "seed"),
    [
        (LENGTHS, 1, 32, mx.float16, False, None, 0),
        (LENGTHS, 1, 32, mx.float16, False, None, 1),
        (LENGTHS[:-2], 2, 64, mx.bfloat16, True, None, 2),
        ([1, 512], 1, 64, mx.float32, False, None, 3),
        ([40], 3, 32, mx.float32, True, None, 4),
        ([0, 1, 5, 16, 3], 2, 32, mx.float16, False, None, 5),
        (LENGTHS[:-2], 2, 40, mx.float32, True, 33, 6),
        ([150], 1, 80, mx.float16, False, 64, 7),
        ([30, 3], 1, 128, mx.float32, False, 0, 8),
        ([20, 3], 1, 5, mx.bfloat16, False, None, 9),
    ],
)
def test_attention(
    lengths: list[int], heads: int, dim: int, dtype: mx.Dtype, with_bias: bool, window: int | None, seed: int
) -> None:
    qkv = normal((sum(lengths), 3 * heads * dim), dtype)
    bias = normal((heads, 2 * max(lengths) + 1), dtype) if with_bias else None
    with emulated_metal(seed):
        found = metal.attention(qkv, starts(lengths), heads, dim**-0.5, bias, max_seqlen=max(lengths), window=window)
    arguments = (lengths, heads, dim**-0.5, bias, window)
    expected = exact_attention(qkv, *arguments)
    check(found, expected, dtype, slack=4e-6 + rounding_of_weights(expected, qkv, *arguments))


@pytest.mark.parametrize(
    ("dim", "dtype", "numbers"),
    [
        (32, mx.float16, ["2_1_16_8", "2_2_32_8", "2_4_32_8"]),
        (64, mx.float16, ["2_1_16_8", "2_2_32_8", "2_4_32_8"]),
        (128, mx.bfloat16, ["1_2_16_8", "1_4_32_8", "1_4_32_8"]),
        (32, mx.float32, ["2_1_16_4", "2_2_32_4", "2_4_32_4"]),
        (64, mx.float32, ["2_1_16_4", "2_2_32_4", "2_4_32_4"]),
        (128, mx.float32, ["1_2_16_4", "1_4_16_4", "1_4_16_4"]),
    ],
)
def test_what_makes_it_fast(dim: int, dtype: mx.Dtype, numbers: list[str]) -> None:
    """For texts up to 16 and 32 tokens and longer ones: of rows by 8 a simdgroup has two where registers hold them.

    A threadgroup has no more queries than such a text, keys at a time as memory holds them, and loads of 16 bytes.
    """
    with emulated_metal(run=False) as sources:
        for longest in (16, 32, 33):
            metal.attention(mx.zeros((33, 36 * dim), dtype=dtype), starts([33]), 12, 0.2, max_seqlen=longest)
    assert "int HEADS, int GROUP, int ROWS, int SIMDGROUPS, int KEYS, int RUN" in sources[0]
    found = [re.findall(rf"_{dim}_12_1_(\d+_\d+_\d+_\d+)_", function(source)) for source in sources]
    assert found == [[one] for one in numbers]


def rounding_of_weights(expected: np.ndarray, qkv: mx.array, *arguments: Any) -> np.ndarray | float:
    """By how much results may differ where each weight is rounded once to qkv's dtype; nothing in float32."""
    if qkv.dtype == mx.float32:
        return 0.0
    hidden = expected.shape[1]
    sizes = mx.concatenate([qkv[:, : 2 * hidden], mx.abs(qkv[:, 2 * hidden :])], axis=1)
    return ROUNDING[qkv.dtype] * (exact_attention(sizes, *arguments) + np.abs(expected))


@pytest.mark.parametrize("keys", [40, 500])
def test_many_small_weights_count(keys: int) -> None:
    """One key has nearly all of the weight, and each of the others less than float16's least normal number."""
    qkv = mx.zeros((keys, 96), dtype=mx.float32)
    qkv[:, 0] = 1
    qkv[0, 32], qkv[0, 64], qkv[1:, 64] = 11, 0, 100
    with emulated_metal():
        found = metal.attention(qkv.astype(mx.float16), starts([keys]), 1, 1.0, max_seqlen=keys)
    expected = exact_attention(qkv, [keys], 1, 1.0)
    np.testing.assert_allclose(exact(found)[:, 0], expected[:, 0], rtol=2e-3)


def test_attention_of_any_lengths() -> None:
    """Every block of queries belongs to one sequence, and every query to one block: an output written twice fails."""
    rng = np.random.default_rng()
    for seed in range(20):
        lengths = [int(n) for n in rng.integers(0, 70, size=12) * (rng.random(12) < 0.7)]
        lengths[rng.integers(12)] = 1
        qkv = normal((sum(lengths), 24), mx.float32)
        with emulated_metal(seed):
            found = metal.attention(qkv, starts(lengths), 1, 0.5, max_seqlen=70)
        check(found, exact_attention(qkv, lengths, 1, 0.5), mx.float32)


def test_attention_of_large_scores_and_values() -> None:
    qkv = normal((40, 3 * 32), mx.float16, deviation=60)
    qkv[:, 64:] = 65504
    with emulated_metal():
        found = metal.attention(qkv, starts([7, 33]), 1, 1.0, max_seqlen=33)
    assert (found == 65504).all(), "an average of equal values, whatever the weights"


def test_so_few_elements_that_they_are_constants() -> None:
    """MLX puts arrays of fewer than 8 elements in another address space."""
    qkv = normal((2, 3), mx.float32)
    with emulated_metal():
        found = metal.attention(qkv, starts([2]), 1, 0.7, max_seqlen=2)
    check(found, exact_attention(qkv, [2], 1, 0.7), mx.float32)


def test_sequences_do_not_see_each_other() -> None:
    qkv = normal((73, 3 * 32), mx.float16)
    with emulated_metal():
        alone = metal.attention(qkv[20:53], starts([33]), 1, 0.2, max_seqlen=33)
        qkv[:20], qkv[53:] = mx.nan, mx.inf
        among = metal.attention(qkv, starts([20, 33, 20]), 1, 0.2, max_seqlen=33)
    assert (among[20:53] == alone).all()
