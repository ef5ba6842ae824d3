"""The native attention by contents and distances against float64."""

import itertools

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import close, normal, rng, starts
from tests.custom_kernels.cpu.test_narrow import bfloat16

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]


def heads_of(x: np.ndarray, heads: int) -> np.ndarray:
    """[n, heads * d] -> [heads, n, d] of float64."""
    return x.astype(np.float64).reshape(len(x), heads, x.shape[1] // heads).transpose(1, 0, 2)


def attention64(
    qkv: np.ndarray,
    to_key: np.ndarray | None,
    to_query: np.ndarray | None,
    rows: np.ndarray,
    cu: np.ndarray,
    heads: int,
    scale: float,
) -> np.ndarray:
    out = np.zeros((len(qkv), qkv.shape[1] // 3))
    for start, end in itertools.pairwise(cu):
        q, k, v = (heads_of(x, heads) for x in np.split(qkv[start:end], 3, axis=1))
        i = np.arange(end - start)
        near = rows[len(rows) // 2 + i[:, None] - i]  # of query i and key j, what i - j has
        scores = q @ k.transpose(0, 2, 1)
        if to_key is not None:
            scores += (q @ heads_of(to_key, heads).transpose(0, 2, 1))[:, i[:, None], near]
        if to_query is not None:
            scores += (k @ heads_of(to_query, heads).transpose(0, 2, 1))[:, i, near]
        weights = np.exp(scale * (scores - scores.max(-1, keepdims=True, initial=-np.inf)))
        mixed = weights @ v / weights.sum(-1, keepdims=True)
        out[start:end] = mixed.transpose(1, 0, 2).reshape(out[start:end].shape)
    return out


@pytest.mark.parametrize("kinds", [(True, True), (True, False), (False, True)], ids=["both", "to key", "to query"])
@pytest.mark.parametrize(
    ("lengths", "head_dim"),
    [([1], 1), ([0, 3, 17, 0, 32], 8), ([129, 33, 2], 24), ([150, 64], 33), ([540, 1], 16)],
)
def test_disentangled_attention(lengths: list[int], head_dim: int, kinds: tuple[bool, bool]) -> None:
    """Any row for any distance, of a table that is shared by sequences shorter than it is for."""
    g = rng(len(lengths), head_dim)
    cu, heads, used, longest = starts(lengths), 2, 40, max(lengths) + 5
    qkv = normal(g, cu[-1], 3 * heads * head_dim)
    tables = [normal(g, used, heads * head_dim) if kind else None for kind in kinds]
    rows = g.integers(0, used, 2 * longest + 1).astype(np.int32)
    found = cpu.disentangled_attention(qkv, *tables, rows, cu, heads, 0.2)
    close(found, attention64(qkv, *tables, rows, cu, heads, 0.2), 2e-5)


@pytest.mark.parametrize(("lengths", "head_dim"), [([1], 2), ([5, 128, 0, 17], 32), ([540, 3], 64), ([40], 100)])
def test_on_bfloat16(lengths: list[int], head_dim: int) -> None:
    if not cpu.product("bfloat16"):
        pytest.skip("this machine has no bfloat16 products")
    g = rng(head_dim, *lengths)
    cu, longest = starts(lengths), max(lengths)
    qkv, tables = normal(g, cu[-1], 3 * 2 * head_dim), [normal(g, 40, 2 * head_dim) for _ in range(2)]
    rows = g.integers(0, 40, 2 * longest + 1).astype(np.int32)
    scale = (3 * head_dim) ** -0.5
    found = cpu.disentangled_attention(qkv, *tables, rows, cu, 2, scale, dtype="bfloat16")
    wanted = attention64(bfloat16(qkv), *map(bfloat16, tables), rows, cu, 2, scale)
    # What is left is the rounding of the weights.
    error = abs(found - wanted)
    assert error.max() <= 0.012
    assert error.mean() <= 0.0015


def test_a_sequence_does_not_depend_on_what_else_is_there(threads: int) -> None:
    g = rng(3)
    lengths = [40, 7, 300]
    qkv, tables = normal(g, sum(lengths), 3 * 2 * 16), [normal(g, 9, 32) for _ in range(2)]
    rows = np.clip(np.arange(-300, 301) + 4, 0, 8).astype(np.int32)
    together = cpu.disentangled_attention(qkv, *tables, rows, starts(lengths), 2, 0.2)
    for start, end in itertools.pairwise(starts(lengths)):
        n = end - start
        near = rows[300 - n : 301 + n].copy()
        alone = cpu.disentangled_attention(qkv[start:end].copy(), *tables, near, starts([n]), 2, 0.2)
        np.testing.assert_array_equal(together[start:end], alone)


def test_nan_stays_in_its_sequence() -> None:
    qkv, table = normal(rng(18), 53, 3 * 64), normal(rng(19), 3, 64)
    qkv[30] = np.nan
    rows = np.ones(2 * 40 + 1, np.int32)
    found = cpu.disentangled_attention(qkv, table, table, rows, starts([10, 40, 3]), 2, 0.2)
    assert np.isnan(found).all(axis=1).nonzero()[0].tolist() == list(range(10, 50))


def test_bad_input() -> None:
    qkv, cu, table, rows = np.ones((4, 24), np.float32), starts([4]), np.ones((5, 8), np.float32), np.zeros(9, np.int32)

    def refused(error: type[Exception], match: str, **changes: object) -> None:
        given = {"qkv": qkv, "to_key": table, "to_query": table, "rows": rows, "cu_seqlens": cu, "num_heads": 2}
        with pytest.raises(error, match=match):
            cpu.disentangled_attention(**{**given, "scale": 1.0, **changes})  # type: ignore[arg-type]

    refused(ValueError, "3 \\* heads", num_heads=3)
    refused(TypeError, "qkv", qkv=qkv.astype(np.float64))
    refused(ValueError, "to_key of shape", to_key=table[:, :7])
    refused(ValueError, "to_query of shape", to_query=table[:4].copy())
    refused(ValueError, "use attention", to_key=None, to_query=None)
    refused(ValueError, "each distance", rows=rows[:8])
    refused(ValueError, "from 0 to 4", rows=rows + 5)
    refused(ValueError, "from 0 to 4", rows=rows - 1)
    refused(ValueError, "rise from 0 to 4", cu_seqlens=starts([5]))
    refused(ValueError, "none longer", rows=rows[:7].copy())
    refused(ValueError, "no attention in 'int8'", dtype="int8")
