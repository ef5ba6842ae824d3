"""The native mean pooling against float64."""

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import WIDTHS, close, normal, rng, starts

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("normalize", [False, True])
def test_mean_pool(width: int, normalize: bool) -> None:
    g = rng(width, 14)
    lengths = [3, 0, 1, 7, 200]
    cu = starts(lengths)
    hidden = normal(g, cu[-1], width)
    for skip in (0, 3, 6):
        wanted = np.zeros((len(lengths), width))
        for row, (start, n) in enumerate(zip(cu, lengths, strict=False)):
            if n:
                wanted[row] = hidden[start + (skip if n > skip else 0) : start + n].astype(np.float64).mean(0)
        if normalize:
            wanted /= np.maximum(np.linalg.norm(wanted, axis=1, keepdims=True), 1e-12)
        close(cpu.mean_pool(hidden, cu, skip, normalize), wanted)


def test_bad_mean_pool_input() -> None:
    x = np.ones((4, 8), np.float32)
    for bad in ([0, 5], [1, 4], [0, 3, 2, 4], [0, -1, 4]):
        with pytest.raises(ValueError, match="rise from 0 to 4"):
            cpu.mean_pool(x, np.array(bad, np.int32))
    with pytest.raises(ValueError, match="skip"):
        cpu.mean_pool(x, starts([4]), -1)
