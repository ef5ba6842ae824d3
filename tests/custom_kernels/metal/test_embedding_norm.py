"""The Metal embedding layer, emulated, against float64."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import metal
from tests.custom_kernels.conftest import exact
from tests.custom_kernels.metal.conftest import check, normal, normalised
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.parametrize(
    ("width", "dtype", "rows", "norm", "with_bias", "seed"),
    [
        (384, mx.float16, [50, 40, 2], True, True, 0),
        (100, mx.float32, [50, 40], True, False, 1),
        (2500, mx.bfloat16, [50], True, True, 2),
        (64, mx.float32, [50, 40, 2], False, False, 3),
    ],
)
def test_embedding_norm(width: int, dtype: mx.Dtype, rows: list[int], norm: bool, with_bias: bool, seed: int) -> None:
    tokens = 11
    ids = [mx.array(np.random.default_rng().integers(0, n, size=tokens).astype(np.int32)) for n in rows]
    ids[0][:2] = mx.array([0, rows[0] - 1])
    tables = [normal((n, width), dtype) for n in rows]
    weight = normal((width,), dtype) if norm else None
    bias = normal((width,), dtype) if with_bias else None
    with emulated_metal(seed):
        found = metal.embedding_norm(list(zip(tables, ids, strict=True)), weight, bias, 1e-5)
    summed = sum(exact(table)[np.array(i)] for table, i in zip(tables, ids, strict=True))
    check(found, summed if weight is None else normalised(summed, weight, bias), dtype, slack=1e-5)
