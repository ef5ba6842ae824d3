"""The Metal max_sim, emulated, against each pair by itself."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import metal
from custom_kernels.arrays import starts
from tests.custom_kernels.conftest import spoilt
from tests.custom_kernels.test_max_sim import arrays, expected
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.parametrize(
    ("width", "dtype", "seed"),
    [(33, mx.float32, 0), (130, mx.bfloat16, 2)],
)
def test_max_sim(width: int, dtype: mx.Dtype, seed: int) -> None:
    asked, texts = [3, 0, 35], [1, 40, 0, 32]
    queries, documents = (mx.array(x).astype(dtype) for x in arrays(asked, texts, width))
    with emulated_metal(seed):
        found = np.array(metal.max_sim(queries, starts(*asked), documents, starts(*texts)))
    rows = [np.array(x.astype(mx.float32)) for x in (queries, documents)]
    exact = expected(rows[0], asked, rows[1], texts)
    assert np.isinf(found[:, 2]).all()
    there = [0, 1, 3]
    assert np.abs(found[:, there] - exact[:, there]).max() <= 1e-5 * np.abs(exact[:, there]).max()


@pytest.mark.parametrize("place", [0, 4, 39])
def test_the_greatest_beside_what_is_no_number_is_none(place: int) -> None:
    rows = spoilt(place)
    with emulated_metal(2):
        found = np.array(
            metal.max_sim(mx.array(np.eye(3, dtype=np.float32)), starts(3), mx.array(rows), starts(40, 40))
        )
    assert np.isnan(found[0, 0])
    assert found[0, 1] == 3
