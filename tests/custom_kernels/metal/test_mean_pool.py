"""The Metal mean pooling, emulated, against float64."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import metal
from tests.custom_kernels.conftest import exact, starts
from tests.custom_kernels.metal.conftest import LENGTHS, check, normal
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.parametrize(
    ("lengths", "width", "dtype", "skip", "normalize", "seed"),
    [
        (LENGTHS, 100, mx.float16, 0, True, 0),
        (LENGTHS, 100, mx.float16, 2, True, 1),
        ([9], 384, mx.float32, 3, False, 2),
        ([5, 0, 3], 129, mx.bfloat16, 3, True, 3),
    ],
)
def test_mean_pool(lengths: list[int], width: int, dtype: mx.Dtype, skip: int, normalize: bool, seed: int) -> None:
    hidden = normal((sum(lengths), width), dtype)
    with emulated_metal(seed):
        found = metal.mean_pool(hidden, starts(lengths), skip, normalize)
    expected = np.zeros((len(lengths), width))
    for i, (start, length) in enumerate(zip(np.cumsum([0, *lengths]), lengths, strict=False)):
        if length:
            expected[i] = exact(hidden)[start + skip * (length > skip) : start + length].mean(axis=0)
    if normalize:
        expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    check(found, expected, mx.float32, slack=1e-6)
