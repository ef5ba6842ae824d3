"""The Metal top_k_scores, emulated, against all scores sorted."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import metal
from tests.custom_kernels.test_top_k_scores import expected
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.parametrize(
    ("count", "width", "dtype", "k", "masked", "scaled", "seed"),
    [
        (150, 40, mx.float32, 10, True, False, 0),
        (64, 33, mx.float16, 64, False, False, 1),
        (129, 100, mx.bfloat16, 3, False, True, 2),
        (200, 32, mx.int8, 5, True, True, 3),
        (3, 7, mx.int8, 8, False, False, 0),
    ],
)
def test_top_k_scores(count: int, width: int, dtype: mx.Dtype, k: int, masked: bool, scaled: bool, seed: int) -> None:
    rng = np.random.default_rng()
    queries, rows = rng.integers(-3, 4, (2, width)), rng.integers(-3, 4, (count, width))
    bits = rng.integers(0, 256, -(-count // 8), dtype=np.uint8)
    wanted = np.unpackbits(bits, count=count, bitorder="little").astype(bool)
    scales = rng.choice([0.5, 1.0, 2.0], count).astype(np.float32)
    with emulated_metal(seed):
        found = metal.top_k_scores(
            mx.array(queries.astype(np.float32)),
            mx.array(rows.astype(np.float32)).astype(dtype),
            k,
            mx.array(bits) if masked else None,
            mx.array(scales) if scaled else None,
            chunk=64,
        )
        best = expected(queries, rows, k, wanted if masked else np.ones(count, bool), scales if scaled else np.ones(1))
        np.testing.assert_array_equal(np.array(found)[:, :, : best.shape[2]], best)
        assert (np.array(found)[:, 1, best.shape[2] :] == -1).all()
