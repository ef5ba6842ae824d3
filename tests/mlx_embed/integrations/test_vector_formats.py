"""Sparse vectors and tokens' vectors in Qdrant's and Milvus's forms, and LangChain's classes for both."""

import abc
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mlx_embed import MultiVectors, SparseEncoder, SparseVectors
from mlx_embed.integrations.vector_formats import to_milvus, to_qdrant
from tests.sparse import make

TEXTS = ["the wing flow", "", "heat"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SparseEncoder:
    return SparseEncoder.from_pretrained(make(tmp_path_factory.mktemp("s"), "queries looked up"), device="cpu")


@dataclass
class Vector:
    """Stands for langchain_qdrant's own class."""

    indices: list[int]
    values: list[float]


@pytest.fixture
def frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two packages as they are, or where they are not installed, what of them is used."""
    for name, place, members in (
        ("langchain_qdrant", "sparse_embeddings", {"SparseEmbeddings": abc.ABC, "SparseVector": Vector}),
        ("langchain_milvus", "utils.sparse", {"BaseSparseEmbedding": abc.ABC}),
    ):
        monkeypatch.delitem(sys.modules, f"mlx_embed.integrations.{name}", raising=False)
        try:
            __import__(f"{name}.{place}")
        except ImportError:
            parts = place.split(".")
            for depth in range(len(parts) + 1):
                module = ModuleType(".".join([name, *parts[:depth]]))
                module.__dict__.update(members)
                monkeypatch.setitem(sys.modules, module.__name__, module)


def dense(rows: list[dict[int, float]], dimension: int) -> np.ndarray:
    out = np.zeros((len(rows), dimension), dtype=np.float32)
    for row, weights in zip(out, rows, strict=True):
        row[list(weights)] = list(weights.values())
    return out


def test_formats(model: SparseEncoder) -> None:
    vectors = model.encode_document(TEXTS)
    assert isinstance(vectors, SparseVectors)
    assert (dense(to_milvus(vectors), 120) == vectors.dense()).all()
    rows = to_qdrant(vectors)
    assert (
        dense([dict(zip(row["indices"], row["values"], strict=True)) for row in rows], 120) == vectors.dense()
    ).all()
    assert to_qdrant(vectors[0]) == rows[0]
    assert to_milvus(vectors[0]) == to_milvus(vectors)[0]
    assert all(type(token) is int and type(weight) is float for token, weight in to_milvus(vectors[0]).items())
    tokens = MultiVectors.of([np.ones((2, 3)), np.zeros((1, 3))])
    assert to_qdrant(tokens) == [[[1.0] * 3] * 2, [[0.0] * 3]]
    assert to_qdrant(np.ones((2, 1, 3), dtype=np.float32)) == [[[1.0] * 3]] * 2
    assert to_qdrant(np.ones((2, 3), dtype=np.float32)) == [[1.0] * 3] * 2


@pytest.mark.parametrize(("form", "given"), [(to_qdrant, [1.0]), (to_milvus, np.ones((2, 3))), (to_milvus, {3: 1.0})])
def test_what_is_no_vector(form: Any, given: Any) -> None:
    with pytest.raises(TypeError, match="SparseVectors are needed"):
        form(given)


@pytest.mark.usefixtures("frameworks")
def test_langchain(model: SparseEncoder, tmp_path: Path) -> None:
    from mlx_embed.integrations import langchain_milvus, langchain_qdrant

    query, documents = model.encode_query("heat"), model.encode_document(TEXTS)
    expected: Any = to_milvus(documents)
    milvus = langchain_milvus.MLXSparseEmbeddings(model)
    assert milvus.embed_documents(TEXTS) == expected
    assert milvus.embed_query("heat") == to_milvus(query)
    qdrant = langchain_qdrant.MLXSparseEmbeddings(make(tmp_path, "queries looked up"))
    found = qdrant.embed_documents(TEXTS)
    assert dense([dict(zip(row.indices, row.values, strict=True)) for row in found], 120) == pytest.approx(
        dense(expected, 120), abs=1e-5
    )
    assert qdrant.embed_query("heat").indices == query.indices.tolist()
