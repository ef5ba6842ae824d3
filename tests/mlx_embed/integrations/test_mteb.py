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
from tests.sparse import make as make_sparse

pytest.importorskip("mteb", reason="mteb is not installed")

import mteb
import sentence_transformers
from mteb.mocks import mock_tasks

from mlx_embed.integrations.mteb import MLXCrossEncoder, MLXEncoder, MLXSparseEncoder

TASKS = ["Retrieval", "STS", "Reranking", "Summarization", "PairClassification", "Classification", "BitextMining"]


def scores(model: Any, task: str) -> dict[str, float]:
    """Every number that mteb gives a model, by its place."""
    found = mteb.evaluate(model, getattr(mock_tasks, f"Mock{task}Task")(), cache=None, show_progress_bar=False)
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
@pytest.mark.parametrize("task", ["Retrieval", "STS", "Classification"])
def test_live_sparse_encoder(task: str, tmp_path: Path) -> None:
    folder = make_sparse(tmp_path / "sparse", "bert")
    reference = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    assert same(scores(MLXSparseEncoder(folder), task), scores(reference, task))


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
