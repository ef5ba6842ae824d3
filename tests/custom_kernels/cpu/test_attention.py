"""The native attention against float64."""

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import attention64, close, normal, rng, starts

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]


@pytest.mark.parametrize("head_dim", [1, 8, 24, 32, 33, 64, 80, 128])
@pytest.mark.parametrize("lengths", [[0, 1, 31, 0, 32, 33, 127, 128], [511, 512, 513, 3]], ids=["short", "long"])
def test_attention(head_dim: int, lengths: list[int]) -> None:
    g = rng(head_dim, len(lengths))
    cu, heads = starts(lengths), 2
    qkv = normal(g, cu[-1], 3 * heads * head_dim)
    scale = head_dim**-0.5
    close(cpu.attention(qkv, cu, heads, scale), attention64(qkv, cu, heads, scale))
    bias = normal(g, heads, 2 * (max(lengths) + 3) - 1)
    close(cpu.attention(qkv, cu, heads, scale, bias), attention64(qkv, cu, heads, scale, bias))


def test_softmax_is_exact_to_rounding() -> None:
    scores = np.linspace(-30, 30, 4001)
    qkv = np.zeros((2 * 4001, 3), np.float32)
    qkv[:, 0] = 1
    qkv[::2, 1] = scores
    qkv[::2, 2] = 1
    cu = np.arange(0, 2 * 4001 + 1, 2, dtype=np.int32)
    wanted = 1 / (1 + np.exp(-qkv[::2, 1].astype(np.float64)))
    # A score of 30 is itself rounded to 1e-6 of e^30.
    tolerance = 4e-7 + 1e-7 * abs(scores)
    assert (abs(cpu.attention(qkv, cu, 1, 1.0)[::2, 0] / wanted - 1) <= tolerance).all()


@pytest.mark.parametrize("window", [0, 1, 5, 64, 600])
def test_attention_in_a_window(window: int, threads: int) -> None:
    g = rng(window, 7)
    cu = starts([1, 33, 701, 1301])  # not to be cut into equal parts
    qkv = normal(g, cu[-1], 3 * 2 * 24)
    bias = normal(g, 2, 2 * 1301 - 1)
    close(cpu.attention(qkv, cu, 2, 0.2, window=window), attention64(qkv, cu, 2, 0.2, window=window))
    close(cpu.attention(qkv, cu, 2, 0.2, bias, window=window), attention64(qkv, cu, 2, 0.2, bias, window=window))


def test_attention_of_a_long_sequence_with_large_scores(threads: int) -> None:
    g = rng(8)
    cu = starts([2000, 17])
    qkv = normal(g, cu[-1], 3 * 3 * 32)
    qkv[:, :192] *= 3
    # Scores reach 200, where float32 is exact to 1.5e-5 at best.
    close(cpu.attention(qkv, cu, 3, 1.0), attention64(qkv, cu, 3, 1.0), 2e-4)


@pytest.mark.parametrize("direction", ["before", "after", "all but one"])
def test_attention_with_keys_that_the_bias_rules_out(direction: str) -> None:
    """Whole blocks of keys get no weight, the first ones or the last, or all but a token's own."""
    g = rng(9)
    cu = starts([900, 40])
    qkv = normal(g, 940, 3 * 2 * 32)
    bias = np.zeros((2, 2 * 900 - 1), np.float32)
    if direction != "after":
        bias[:, :899] = -np.inf
    if direction != "before":
        bias[:, 900:] = -np.inf
    close(cpu.attention(qkv, cu, 2, 0.2, bias), attention64(qkv, cu, 2, 0.2, bias))


def test_nan_stays_in_its_sequence() -> None:
    cu = starts([10, 40, 3])
    qkv = normal(rng(18), 53, 3 * 64)
    qkv[30] = np.nan
    rows = np.isnan(cpu.attention(qkv, cu, 2, 0.2)).all(axis=1).nonzero()[0]
    assert rows.tolist() == list(range(10, 50))


def test_bad_attention_input() -> None:
    qkv, cu = np.ones((4, 24), np.float32), starts([4])
    for bad in ([0, 5], [1, 4], [0, 3, 2, 4], [0, -1, 4]):
        with pytest.raises(ValueError, match="rise from 0 to 4"):
            cpu.attention(qkv, np.array(bad, np.int32), 2, 1.0)
    with pytest.raises(TypeError, match="int32"):
        cpu.attention(qkv, np.array([0, 4], np.int64), 2, 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="heads"):
        cpu.attention(qkv, cu, 3, 1.0)
    with pytest.raises(ValueError, match="longer than the bias"):
        cpu.attention(qkv, cu, 2, 1.0, np.ones((2, 5), np.float32))
    for shape in ((3, 7), (2, 8), (2, 4, 4)):
        with pytest.raises(ValueError, match="bias of shape"):
            cpu.attention(qkv, cu, 2, 1.0, np.ones(shape, np.float32))
    with pytest.raises(ValueError, match="window"):
        cpu.attention(qkv, cu, 2, 1.0, window=-1)
