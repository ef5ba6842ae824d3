"""The native kernel of each text's greatest products against float64."""

import itertools

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import close, linear64, normal, rng, starts

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]


def max64(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, cu: np.ndarray) -> np.ndarray:
    products = linear64(x, weight, bias)
    return np.stack([products[a:b].max(0, initial=-np.inf) for a, b in itertools.pairwise(cu)])


# Texts of more rows than a block has, texts that end with one, empty ones first, last and between.
@pytest.mark.parametrize("lengths", [[5], [0, 3, 0, 112, 0], [300, 1, 1, 1, 40], [50] * 40, [1] * 230])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (33, 40), (300, 65), (1000, 32)])
def test_linear_max(lengths: list[int], outputs: int, inputs: int) -> None:
    g, cu = rng(outputs, inputs), starts(lengths)
    x, weight, bias = normal(g, cu[-1], inputs), normal(g, outputs, inputs), normal(g, outputs)
    close(cpu.linear_max(x, cpu.Linear(weight, bias), cu), max64(x, weight, bias, cu), 2e-5)
    close(cpu.linear_max(x, cpu.Linear(weight), cu), max64(x, weight, None, cu), 2e-5)


def test_threads_change_nothing(threads: int) -> None:
    g, cu = rng(1), starts([7, 200, 0, 31])
    x, weight = normal(g, cu[-1], 48), normal(g, 700, 48)
    close(cpu.linear_max(x, cpu.Linear(weight), cu), max64(x, weight, None, cu), 2e-5)


def test_bad_linear_max_input() -> None:
    layer = cpu.Linear(np.ones((3, 4), np.float32))
    x = np.ones((2, 4), np.float32)
    with pytest.raises(ValueError, match="rise from 0 to 2"):
        cpu.linear_max(x, layer, starts([3]))
    with pytest.raises(ValueError, match="shape"):
        cpu.linear_max(x[:, :3].copy(), layer, starts([2]))
    with pytest.raises(TypeError, match="float32"):
        cpu.linear_max(x.astype(np.float64), layer, starts([2]))
