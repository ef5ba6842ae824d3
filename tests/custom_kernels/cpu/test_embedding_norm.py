"""The native embedding layer against float64."""

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import WIDTHS, close, norm64, normal, rng

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]


@pytest.mark.parametrize("width", WIDTHS)
def test_embedding_norm(width: int) -> None:
    g = rng(width, 3)
    tables = [normal(g, rows, width) for rows in (50, 20, 2)]
    ids = [g.integers(0, len(table), 61).astype(np.int32) for table in tables]
    weight, bias = normal(g, width), normal(g, width)
    for count in (1, 2, 3):
        lookups = list(zip(tables, ids, strict=True))[:count]
        summed = sum(table[i].astype(np.float64) for table, i in lookups)
        close(cpu.embedding_norm(lookups, weight, bias, 1e-5), norm64(summed, weight, bias, 1e-5), 1e-5)
        close(cpu.embedding_norm(lookups, None, None, 0.0), summed)


def test_bad_embedding_norm_input() -> None:
    for ids in ([0, 8], [-1, 0]):
        with pytest.raises(ValueError, match="not a row"):
            cpu.embedding_norm([(np.ones((8, 3), np.float32), np.array(ids, np.int32))], None, None, 0.0)
    with pytest.raises(ValueError, match="1 to 8"):
        cpu.embedding_norm([], None, None, 0.0)
