"""The similarities, against numbers worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from mlx_embed import EmbeddingModel

A = [[3.0, 4.0, 0.0], [1.0, 2.0, 2.0]]
B = [[3.0, 4.0, 0.0], [-4.0, 3.0, 0.0], [0.0, 0.0, 2.0]]
# Of each row of A to each of B; lengths are 5 and 3, and 5, 5 and 2.
BY_HAND = {
    "cosine": [[1, 0, 0], [11 / 15, 2 / 15, 2 / 3]],
    "dot": [[25, 0, 0], [11, 2, 4]],
    "euclidean": [[0, -(50**0.5), -(29**0.5)], [-(12**0.5), -(30**0.5), -(5**0.5)]],
    "manhattan": [[0, -8, -9], [-6, -8, -3]],
}


def told(folder: Path, name: str | None) -> EmbeddingModel:
    """A model whose checkpoint names its similarity, or none."""
    path = folder / "config_sentence_transformers.json"
    config = json.loads(path.read_text()) | {"similarity_fn_name": name}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return EmbeddingModel.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str, checkpoint: Path) -> None:
    model = told(checkpoint, name)
    found = model.similarity(A, B)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array(BY_HAND[name]), abs=1e-5)
    assert model.similarity(B, A) == pytest.approx(found.T, abs=1e-5)
    assert model.similarity(A[1], B) == pytest.approx(found[1:], abs=1e-6)
    assert model.similarity(np.zeros((0, 3)), B).shape == (0, 3)


def test_cosine_where_none_is_named(checkpoint: Path) -> None:
    assert told(checkpoint, None).similarity(A, B) == pytest.approx(np.array(BY_HAND["cosine"]), abs=1e-6)


@pytest.mark.parametrize("name", BY_HAND)
def test_zeros_and_equal_vectors(name: str, checkpoint: Path) -> None:
    """No quotient by a length of 0, and no root of what rounding left below 0."""
    model = told(checkpoint, name)
    assert np.isfinite(model.similarity(np.zeros((1, 3)), B)).all()
    rows = np.random.default_rng(0).normal(size=(20, 7)) * 100
    assert np.isfinite(model.similarity(rows, rows)).all()


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_near_vectors_are_no_further_apart_than_they_are(scale: float, checkpoint: Path) -> None:
    model = told(checkpoint, "euclidean")
    rows = (scale * np.random.default_rng(1).normal(size=(30, 64))).astype(np.float32)
    near = rows + np.float32(scale * 1e-4)
    distances = np.linalg.norm(rows.astype(np.float64)[:, None] - near[None], axis=-1)
    assert model.similarity(rows, near) == pytest.approx(-distances, rel=1e-5)
    assert model.similarity(rows, rows).diagonal() == pytest.approx(0, abs=scale * 1e-6)
    assert model.similarity_pairwise(rows, near) == pytest.approx(model.similarity(rows, near).diagonal(), rel=1e-3)
