"""Pooling against numpy, text by text."""

import itertools

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed.pooling import POOLING, normalize

LENGTHS = [[4, 4], [1, 6, 3], [2, 0, 5, 0], [1]]


def expected(mode: str, tokens: np.ndarray, skip: int) -> np.ndarray:
    kept = tokens[skip:] if len(tokens) > skip else tokens
    return {"mean": kept.mean(0), "max": kept.max(0), "cls": tokens[0], "last": tokens[-1]}[mode]


@pytest.mark.parametrize("skip", [0, 2])
@pytest.mark.parametrize("mode", POOLING)
@pytest.mark.parametrize("lengths", LENGTHS)
def test_pooling(lengths: list[int], mode: str, skip: int) -> None:
    hidden = np.random.default_rng().normal(size=(sum(lengths), 8)).astype(np.float32) - 3
    edges = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    for longest in (max(lengths), max(lengths) + 3):
        found = np.array(POOLING[mode](mx.array(hidden), mx.array(edges), longest, skip))
        assert found.shape == (len(lengths), 8)
        for row, (begin, end) in enumerate(itertools.pairwise(edges)):
            if end > begin:
                assert np.allclose(found[row], expected(mode, hidden[begin:end], skip), atol=1e-6)


def test_normalize() -> None:
    vectors = mx.array([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0], [1e18, 1e18]])
    found = np.array(normalize(vectors))
    assert np.allclose(found[0], [0.6, 0.8])
    assert found[1].tolist() == [0, 0]
    assert np.isfinite(found).all()
    assert np.allclose(found[3], [0.5**0.5] * 2)
