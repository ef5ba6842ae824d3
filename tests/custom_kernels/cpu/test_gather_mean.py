"""The native average of a table's rows against float64."""

import itertools

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import close, normal, rng, starts

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]
LENGTHS = [3, 0, 1, 40, 7, 0]


def table_of(dtype: str, rows: int, width: int) -> np.ndarray:
    values = normal(rng(rows, width), rows, width)
    if dtype == "int8":
        return np.clip(values * 60, -128, 127).astype(np.int8)
    values[0, 0] = 3e-6  # subnormal in float16
    return values.astype(dtype)


def mean64(
    table: np.ndarray, ids: np.ndarray, cu: np.ndarray, mapping: np.ndarray | None, weights: np.ndarray | None
) -> np.ndarray:
    out = np.zeros((len(cu) - 1, table.shape[1]))
    for i, (start, end) in enumerate(itertools.pairwise(cu)):
        here = ids[start:end]
        rows = here if mapping is None else mapping[here]
        share = np.ones(len(here)) if weights is None else weights[here]
        kept = rows >= 0
        if kept.any():
            out[i] = (table[rows[kept]].astype(np.float64) * share[kept, None]).mean(axis=0)
    return out


@pytest.mark.parametrize("width", [1, 7, 33, 127, 256, 300])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_gather_mean(dtype: str, width: int) -> None:
    table, cu = table_of(dtype, 30, width), starts(LENGTHS)
    ids = rng(width).integers(0, 30, cu[-1]).astype(np.int32)
    weights = normal(rng(width, 1), 30)
    mapping = rng(width, 2).integers(-1, 30, 30).astype(np.int32)
    mapping[ids[3]] = -1  # all that the text of one token has
    ids[0] = 0
    for to, shares in ((None, None), (mapping, None), (None, weights), (mapping, weights)):
        # int8 values are whole numbers up to 127.
        bound = 6e-6 * max(1, np.abs(table.astype(np.float64)).max())
        found = cpu.gather_mean(table, ids, cu, to, shares)
        assert np.abs(found - mean64(table, ids, cu, to, shares)).max() <= bound, (to is None, shares is None)
        assert (found[[1, 5]] == 0).all()


def test_a_vocabulary_larger_than_the_table() -> None:
    table, mapping = table_of("float32", 4, 40), np.array([0, 3, 3, 2, 1, 0, -1], dtype=np.int32)
    ids = np.array([6, 4, 5, 1], dtype=np.int32)
    close(cpu.gather_mean(table, ids, starts([2, 2]), mapping), mean64(table, ids, starts([2, 2]), mapping, None))


def test_threads_change_nothing(threads: int) -> None:
    table, cu = table_of("float16", 50, 65), starts([5] * 101)
    ids = rng(9).integers(0, 50, cu[-1]).astype(np.int32)
    close(cpu.gather_mean(table, ids, cu), mean64(table, ids, cu, None, None))


def test_bad_gather_mean_input() -> None:
    table, cu = table_of("float32", 4, 8), starts([2])
    for ids, mapping in (([0, 4], None), ([-1, 0], None), ([0, 2], [0, 1]), ([0, 1], [0, 4])):
        to = None if mapping is None else np.array(mapping, np.int32)
        with pytest.raises(ValueError, match="an id that is not within"):
            cpu.gather_mean(table, np.array(ids, np.int32), cu, to)
    ids = np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="rise from 0 to 2"):
        cpu.gather_mean(table, ids, starts([3]))
    with pytest.raises(TypeError, match=r"a table \[R, H\] of float32, float16, int8"):
        cpu.gather_mean(table.astype(np.float64), ids, cu)
    with pytest.raises(ValueError, match="C-contiguous"):
        cpu.gather_mean(table[:, ::2], ids, cu)
    with pytest.raises(ValueError, match="weights"):
        cpu.gather_mean(table, ids, cu, None, np.ones(3, np.float32))
