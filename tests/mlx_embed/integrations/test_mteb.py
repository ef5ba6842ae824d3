"""mteb's mock tasks: the scores that it gives sentence-transformers' own models of the same folders."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel
from tests.checkpoints import reranker as make_reranker
from tests.conftest import DATA
from tests.mlx_embed.integrations.conftest import theirs
from tests.multi_vector import make as make_multi_vector
from tests.sparse import make as make_sparse

pytest.importorskip("mteb", reason="mteb is not installed")

import mteb
import sentence_transformers
from mteb.mocks import mock_tasks

from mlx_embed.integrations import mteb as adapter
from mlx_embed.integrations.mteb import MLXCrossEncoder, MLXEncoder, MLXMultiVectorEncoder, MLXSparseEncoder

TASKS = ["Retrieval", "STS", "Reranking", "Summarization", "PairClassification", "Classification", "BitextMining"]


def scores(model: Any, task: str) -> dict[str, float]:
    """Every number that mteb gives a model, by its place."""
    made = getattr(mock_tasks, f"Mock{task}Task", None) or getattr(mock_tasks, f"Mock{task}")
    found = mteb.evaluate(model, made(), cache=None, show_progress_bar=False)
    (result,) = found.task_results
    return dict(numbers(result.scores))


def numbers(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(item, f"{place}/{key}")
    elif isinstance(value, float):
        yield place, value


def same(found: dict[str, float], expected: dict[str, float]) -> bool:
    """Equal but for the last digits; what mteb itself has no number for is NaN in both."""
    keys = sorted(expected)
    left, right = ([values[key] for key in keys] for values in (found, expected))
    return found.keys() == expected.keys() and bool(expected) and np.allclose(left, right, atol=1e-5, equal_nan=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", TASKS)
def test_live_encoder(task: str, prompted: Path) -> None:
    path = prompted / "config_sentence_transformers.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"prompts": config["prompts"] | {"STS": "code: ", "Retrieval-query": "wing "}}))
    assert same(scores(MLXEncoder(prompted), task), scores(theirs(prompted), task))


@pytest.mark.filterwarnings("ignore")
def test_live_encoder_by_distance(prompted: Path) -> None:
    """mteb computes cosines and products by itself, and asks the model for other similarities."""
    path = prompted / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"similarity_fn_name": "manhattan"}))
    assert same(scores(MLXEncoder(prompted), "Retrieval"), scores(theirs(prompted), "Retrieval"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["Reranking", "MultilingualReranking"])
def test_live_reranker(task: str, tmp_path: Path) -> None:
    make_reranker("bert", 1, tmp_path)
    reference = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    assert same(scores(MLXCrossEncoder(tmp_path), task), scores(reference, task))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["Retrieval", "Reranking", "STS", "Classification"])
def test_live_sparse_encoder(task: str, tmp_path: Path) -> None:
    folder = make_sparse(tmp_path / "sparse", "bert")
    reference = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    assert same(scores(MLXSparseEncoder(folder), task), scores(reference, task))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", ["sentence-transformers", "prompts"])
@pytest.mark.parametrize("task", ["Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking"])
def test_live_multi_vector_encoder(task: str, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "DOCUMENTS", 3)
    folder = make_multi_vector(tmp_path / "late", layout)
    reference = sentence_transformers.MultiVectorEncoder(str(folder), device="cpu")
    assert same(scores(MLXMultiVectorEncoder(folder), task), scores(reference, task))


def test_a_search_has_the_best_of_all_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    monkeypatch.setattr(adapter, "DOCUMENTS", 3)
    encoder = MLXMultiVectorEncoder(make_multi_vector(tmp_path / "late", "sentence-transformers"))
    assert isinstance(encoder, mteb.SearchProtocol)
    texts = ["the wing", "heat of the flow", "code", "a query", "the flow", "wing of heat", "code of code"]
    corpus = Dataset.from_list([{"id": f"d{i}", "text": text} for i, text in enumerate(texts)])
    queries = Dataset.from_list([{"id": "q0", "text": "heat"}, {"id": "q1", "text": "the code"}])
    how: dict[str, Any] = {
        "task_metadata": mock_tasks.MockRetrievalTask().metadata,
        "hf_split": "test",
        "hf_subset": "default",
        "encode_kwargs": {"batch_size": 2},
    }
    encoder.index(corpus, **how)
    found = encoder.search(queries, top_k=4, **how)
    for name, text in (("q0", "heat"), ("q1", "the code")):
        expected = {f"d{entry['corpus_id']}": entry["score"] for entry in encoder.model.rank(text, texts, top_k=4)}
        assert list(found[name]) == list(expected)
        assert found[name] == pytest.approx(expected, abs=1e-5)
    encoder.index(corpus, **how)
    ranked = {"q0": ["d6", "d0", "d3", "d5"], "q1": []}
    found = encoder.search(queries, top_k=3, top_ranked=ranked, **how)
    own = [entry for entry in encoder.model.rank("heat", texts) if f"d{entry['corpus_id']}" in ranked["q0"]]
    assert list(found["q0"]) == [f"d{entry['corpus_id']}" for entry in own[:3]]
    assert found["q1"] == {}


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        (None, "intfloat/e5-small-v2", "intfloat/e5-small-v2"),
        (None, "MiniLM", "mlx-embed/MiniLM"),
        (None, str(DATA / "tiny-bert"), "mlx-embed/tiny-bert"),
        ("own/name", "MiniLM", "own/name"),
    ],
)
def test_names(given: str | None, name: str, expected: str, tiny_bert: EmbeddingModel, tmp_path: Path) -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")
    model.name = name
    encoder = MLXEncoder(model, name=given, revision="abc")
    assert isinstance(encoder, mteb.EncoderProtocol)
    assert (encoder.mteb_model_meta.name, encoder.mteb_model_meta.revision) == (expected, "abc")
    assert (encoder.mteb_model_meta.embed_dim, encoder.mteb_model_meta.max_tokens) == (32, 64)
    reranker = CrossEncoder.from_pretrained(make_reranker("bert", 1, tmp_path), device="cpu")
    reranker.name = name
    assert isinstance(MLXCrossEncoder(reranker), mteb.CrossEncoderProtocol)
    assert MLXCrossEncoder(reranker, name=given).mteb_model_meta.name == expected
