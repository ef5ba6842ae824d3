"""Pooling against numpy, text by text."""

import itertools
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed.architectures.ops import normalize
from mlx_embed.pooling import POOLING

LENGTHS = [[4, 4], [1, 6, 3], [2, 0, 5, 0], [1]]


def expected(mode: str, tokens: np.ndarray, skip: int) -> np.ndarray:
    skip = skip if len(tokens) > skip else 0
    kept = tokens[skip:]
    places = np.arange(skip + 1, len(tokens) + 1)[:, None]
    return {
        "mean": kept.mean(0),
        "max": kept.max(0),
        "cls": kept[0],
        "lasttoken": tokens[-1],
        "mean_sqrt_len_tokens": kept.sum(0) / np.sqrt(len(kept)),
        "weightedmean": (kept * places).sum(0) / places.sum(),
    }[mode]


@pytest.mark.parametrize(
    "array",
    [
        mx.array,
        pytest.param(np.array, marks=pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built")),
    ],
    ids=["mlx", "numpy"],
)
@pytest.mark.parametrize("skip", [0, 2])
@pytest.mark.parametrize("mode", POOLING)
@pytest.mark.parametrize("lengths", LENGTHS)
def test_pooling(lengths: list[int], mode: str, skip: int, array: Callable) -> None:
    hidden = np.random.default_rng().normal(size=(sum(lengths), 8)).astype(np.float32) - 3
    edges = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    for longest in (max(lengths), max(lengths) + 3):
        found = POOLING[mode](array(hidden), array(edges), longest, skip)
        assert isinstance(found, type(array(hidden)))
        found = np.array(found)
        assert found.shape == (len(lengths), 8)
        assert found.dtype == np.float32
        for row, (begin, end) in enumerate(itertools.pairwise(edges)):
            if end > begin:
                assert np.allclose(found[row], expected(mode, hidden[begin:end], skip), atol=1e-5)


@pytest.mark.parametrize("array", [mx.array, lambda rows: np.array(rows, dtype=np.float32)], ids=["mlx", "numpy"])
def test_normalize(array: Callable) -> None:
    found = np.array(normalize(array([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0], [1e18, 1e18], [3e-6, 4e-6]])))
    assert np.allclose(found[0], [0.6, 0.8])
    assert found[1].tolist() == [0, 0]
    assert np.isfinite(found).all()
    assert np.allclose(found[3], [0.5**0.5] * 2)
    assert np.allclose(found[4], [0.6, 0.8], atol=1e-5), "short vectors have a direction too"
