"""BGEM3 against what its authors' package computes: golden values, and live."""

import pickle
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import BGEM3, CheckpointError, EmbeddingModel, SparseVectors
from tests.bge_m3 import TEXTS, make, oracle
from tests.checkpoints import read
from tests.conftest import DATA

pytestmark = pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")
ENGINES = ["reference", *(["native"] if cpu.available() else [])]


def load(folder: Path, **options: Any) -> BGEM3:
    return BGEM3.from_pretrained(folder, device="cpu", **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BGEM3:
    return load(make(tmp_path_factory.mktemp("m3")))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("width", [32, 20])
def test_golden(engine: str, width: int, tmp_path: Path) -> None:
    found = load(make(tmp_path, width), engine=engine).encode(TEXTS)
    with np.load(DATA / "bge_m3.npz") as file:
        assert found.dense == pytest.approx(file["dense"], abs=1e-5)
        assert found.sparse.dense() == pytest.approx(file["sparse"], abs=1e-5)
        whole = file[f"multi, {width} wide"]
    assert [len(text) for text in found.multi_vector] == [8, 1, 6, 4, 63, 2]
    few = np.concatenate([text[:3] for text in found.multi_vector])
    assert few == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("width", [32, 40])
def test_live(width: int, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch oracles are not installed")
    expected = oracle(make(tmp_path, width))
    found = load(tmp_path).encode(TEXTS)
    assert found.dense == pytest.approx(expected["dense"], abs=1e-5)
    assert found.sparse.dense() == pytest.approx(expected["sparse"], abs=1e-5)
    for a, b in zip(found.multi_vector, expected["multi"], strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_vectors_have_length_1_and_the_folder_is_an_embedding_models_too(model: BGEM3) -> None:
    dense = EmbeddingModel.from_pretrained(model.checkpoint.folder, device="cpu")
    assert dense.dimension == model.dimension
    assert np.linalg.norm(model.encode(TEXTS).dense, axis=1) == pytest.approx(1, abs=1e-6)


def test_batches_change_nothing(model: BGEM3) -> None:
    whole = model.encode(TEXTS)
    for options in ({"batch_tokens": 7}, {"batch_size": 1}):
        found = model.encode(iter(TEXTS), **options)
        assert found.dense == pytest.approx(whole.dense, abs=1e-5)
        assert found.sparse.dense() == pytest.approx(whole.sparse.dense(), abs=1e-5)
        assert found.multi_vector.vectors == pytest.approx(whole.multi_vector.vectors, abs=1e-5)


def test_what_is_not_asked_for(model: BGEM3) -> None:
    whole, found = model.encode("heat"), model.encode("heat", return_sparse=False, return_multi_vector=False)
    assert (found.dense == whole.dense).all()
    assert found.sparse is None
    assert found.multi_vector is None
    none = model.encode([])
    assert none.multi_vector.vectors.shape == (0, model.token_dimension)
    assert none.dense.shape == (0, 32)
    assert len(none.sparse) == len(none.multi_vector) == 0
    with pytest.raises(ValueError, match="return_sparse"):
        model.similarity(whole, found)
    with pytest.raises(ValueError, match="return_multi_vector"):
        model.similarity(whole, found, (1, 0, 1))
    assert model.similarity(whole, found, (2, 0, 0)) == pytest.approx(1, abs=1e-6)


def test_similarity(model: BGEM3) -> None:
    a, b = model.encode(TEXTS[:2]), model.encode(TEXTS)
    parts = [
        a.dense @ b.dense.T,
        a.sparse.dense() @ b.sparse.dense().T,
        np.array([[(x @ y.T).max(axis=1).mean() for y in b.multi_vector] for x in a.multi_vector]),
    ]
    for weights in ((1, 1, 1), (1, 0, 0), (0.4, 0.2, 0.4), (0, 3, 0)):
        expected = sum(weight * part for weight, part in zip(weights, parts, strict=True)) / sum(weights)
        assert model.similarity(a, b, weights) == pytest.approx(expected, abs=1e-5)
    for weights in ((0, 0, 0), (1, -1, 1), (1, 1)):
        with pytest.raises(ValueError, match="weights"):
            model.similarity(a, b, weights)


def test_decode(model: BGEM3) -> None:
    vectors = model.encode("the wing").sparse
    assert isinstance(vectors, SparseVectors)
    decoded = model.decode(vectors[0])
    for given in (vectors, [vectors[0]], vectors[0].values):
        with pytest.raises(TypeError, match=r"decode takes one SparseVector, as sparse\[0\]"):
            model.decode(given)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="similarity takes M3Vectors, as encode gives them, got a SparseVectors"):
        model.similarity(model.encode("wing"), vectors)  # type: ignore[arg-type]
    assert {token for token, _ in decoded} <= {"the", "wing"}
    assert [weight for _, weight in decoded] == sorted((weight for _, weight in decoded), reverse=True)


def test_a_copy_gives_the_same(model: BGEM3) -> None:
    copy = pickle.loads(pickle.dumps(model))
    assert (copy.encode("heat").dense == model.encode("heat").dense).all()


@pytest.mark.parametrize("name", ["sparse_linear", "colbert_linear"])
def test_layers_that_are_missing_or_broken(name: str, tmp_path: Path) -> None:
    path = make(tmp_path) / f"{name}.safetensors"
    mx.save_safetensors(str(path), {"weight": mx.zeros((1, 31)), "bias": mx.zeros(1)})
    with pytest.raises(CheckpointError, match="config"):
        load(tmp_path)
    mx.save_safetensors(str(path), {"weight": mx.zeros((1, 32))})
    with pytest.raises(CheckpointError, match="of a linear layer"):
        load(tmp_path)
    path.rename(path.with_suffix(".pt"))
    with pytest.raises(CheckpointError, match=rf"{name}\.pt, a pickle, .*weights_only=True"):
        load(tmp_path)
    assert read(tmp_path)
