"""Mean pooling against float64, on every back end that this machine has."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import mean_pool
from tests.custom_kernels.conftest import DTYPES, error, exact, present, random, starts


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("skip", [0, 4])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [33, 384, 768, 4096])
@pytest.mark.parametrize("backend", present("mean_pool"))
def test_mean_pool(backend: str, width: int, dtype: str, skip: int, normalize: bool) -> None:
    lengths = [1, 31, 0, 4, 5, 512, 33, 0]
    hidden = random(sum(lengths), width, dtype=dtype)
    rows, expected, begin = exact(hidden), np.zeros((len(lengths), width)), 0
    for i, length in enumerate(lengths):
        kept = rows[begin + (skip if length > skip else 0) : begin + length]
        if length:
            expected[i] = kept.mean(axis=0)
        begin += length
    if normalize:
        expected /= np.maximum(np.linalg.norm(expected, axis=-1, keepdims=True), 1e-12)
    hidden = hidden[:]
    found = mean_pool(hidden, starts(lengths), skip, normalize, backend=backend)
    assert found.dtype == mx.float32
    assert error(found, expected) <= 2e-6


@pytest.mark.parametrize("backend", present("mean_pool"))
def test_mean_pool_of_a_prompt_of_nan_and_of_a_slice(backend: str) -> None:
    hidden = random(7 * 384 + 1, dtype="float16")[1:].reshape(7, 384)
    expected = exact(hidden)[2:].mean(axis=0, keepdims=True)
    hidden = mx.where(mx.arange(7)[:, None] < 2, mx.nan, hidden).astype(mx.float16)
    assert error(mean_pool(hidden, starts([7]), 2, backend=backend), expected) <= 2e-6


@pytest.mark.parametrize("backend", present("mean_pool"))
def test_mean_pool_of_nothing(backend: str) -> None:
    for lengths in ([], [0, 0]):
        found = mean_pool(mx.zeros((0, 8)), starts(lengths), backend=backend)
        assert np.array(found).tolist() == [[0.0] * 8] * len(lengths)
    found = mean_pool(mx.zeros((4, 0)), starts([3, 1]), backend=backend)
    mx.eval(found)
    assert found.shape == (2, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": mx.zeros((4,))}, "hidden"),
        ({"hidden": mx.zeros((4, 8), dtype=mx.int32)}, "hidden is"),
        ({"cu_seqlens": mx.array([0.0, 4.0])}, "cu_seqlens"),
        ({"skip": -1}, "skip of at least 0"),
        ({"backend": "vulkan"}, "no backend 'vulkan'"),
    ],
)
def test_bad_pool_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        mean_pool(**({"hidden": mx.zeros((4, 8)), "cu_seqlens": starts([4])} | change))
