"""The view of a model that sentence-transformers' own code takes: its results, golden and live."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from tests import oracles
from tests.conftest import DATA
from tests.mlx_embed.integrations.conftest import theirs, with_prompts

pytest.importorskip("sentence_transformers", oracles.OLDEST, reason=oracles.MISSING)

import torch
from sentence_transformers.sentence_transformer import evaluation
from sentence_transformers.util import mine_hard_negatives, paraphrase_mining

from mlx_embed.integrations.sentence_transformers import SentenceTransformerView

GOLDEN = json.loads((DATA / "odd/evaluators.json").read_text())
ASKED = GOLDEN["asked"]
TEXTS = ["the wing", "", "heat of the boundary layer", "naïve 日本"]
TOLERANCE = 1e-5
K = {"accuracy_at_k": [1, 3], "precision_recall_at_k": [1, 3], "mrr_at_k": [3], "ndcg_at_k": [3], "map_at_k": [3]}


def view(folder: Path) -> SentenceTransformerView:
    return SentenceTransformerView(EmbeddingModel.from_pretrained(folder, device="cpu"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[SentenceTransformerView, Any]:
    """A view of a model with prompts, and sentence-transformers' own model of the folder."""
    folder = with_prompts(Path(shutil.copytree(DATA / "tiny-bert", tmp_path_factory.mktemp("both") / "model")))
    return view(folder), theirs(folder)


def information_retrieval() -> Any:
    relevant = {name: set(found) for name, found in ASKED["relevant"].items()}
    return evaluation.InformationRetrievalEvaluator(
        ASKED["queries"], ASKED["corpus"], relevant, show_progress_bar=False, write_csv=False, **K
    )


def embedding_similarity(**options: Any) -> Any:
    return evaluation.EmbeddingSimilarityEvaluator(
        ASKED["first"], ASKED["second"], ASKED["labels"], write_csv=False, **options
    )


def triplet() -> Any:
    return evaluation.TripletEvaluator(ASKED["first"], ASKED["second"], ASKED["negatives"], write_csv=False)


def reranking() -> Any:
    return evaluation.RerankingEvaluator(ASKED["samples"], at_k=2, write_csv=False, show_progress_bar=False)


EVALUATORS: dict[str, Callable[[], Any]] = {
    "InformationRetrieval": information_retrieval,
    "EmbeddingSimilarity": embedding_similarity,
    "Triplet": triplet,
    "Reranking": reranking,
}


@pytest.mark.parametrize("name", EVALUATORS)
def test_golden_evaluators(name: str) -> None:
    model = view(DATA / "tiny-bert")
    found = model.evaluate(EVALUATORS[name]())
    expected = GOLDEN["found"][name]
    assert found.keys() == expected.keys()
    assert all(abs(found[key] - expected[key]) <= TOLERANCE for key in expected)
    assert list(model.model_card_data.metrics.values()) == [found]


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("name", EVALUATORS)
def test_live_evaluators(name: str, similarity: str, prompted: Path) -> None:
    path = prompted / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"similarity_fn_name": similarity, "truncate_dim": 9}))
    expected = EVALUATORS[name]()(theirs(prompted))
    found = EVALUATORS[name]()(view(prompted))
    assert found.keys() == expected.keys()
    assert all(abs(found[key] - expected[key]) <= TOLERANCE for key in expected)


@pytest.mark.parametrize("precision", ["int8", "ubinary"])
def test_live_evaluator_of_codes(precision: str, prompted: Path) -> None:
    expected = embedding_similarity(precision=precision)(theirs(prompted))
    found = embedding_similarity(precision=precision)(view(prompted))
    assert found.keys() == expected.keys()
    assert all(abs(found[key] - expected[key]) <= 1e-3 for key in expected)


def test_golden_paraphrase_mining() -> None:
    texts = [*ASKED["queries"].values(), *ASKED["corpus"].values()]
    found = paraphrase_mining(view(DATA / "tiny-bert"), texts)
    expected = GOLDEN["found"]["paraphrase_mining"]
    assert [tuple(pair) for _, *pair in found] == [tuple(pair) for _, *pair in expected]
    assert np.abs(np.subtract([score for score, *_ in found], [score for score, *_ in expected])).max() <= TOLERANCE


def test_golden_hard_negatives() -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    pairs = datasets.Dataset.from_dict({"query": ASKED["first"], "answer": ASKED["second"]})
    found = mine_hard_negatives(pairs, view(DATA / "tiny-bert"), num_negatives=1, verbose=False)
    assert found.to_dict() == GOLDEN["found"]["mine_hard_negatives"]


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"convert_to_tensor": True},
        {"convert_to_numpy": False},
        {"normalize_embeddings": True, "truncate_dim": 8},
        {"truncate_dim": 8, "pool": None, "device": "cpu", "chunk_size": None, "batch_size": 2},
        {"precision": None},
        {"precision": "uint8"},
        {"precision": "binary", "convert_to_tensor": True},
        {"prompt": "code: "},
        {"prompt_name": "query"},
        {"output_value": "sentence_embedding", "show_progress_bar": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[2]], ids=["list", "single"])
def test_live_encode(
    method: str, options: dict[str, Any], texts: Any, both: tuple[SentenceTransformerView, Any]
) -> None:
    if options.get("precision") == "uint8" and isinstance(texts, str):
        pytest.skip("one vector has no ranges")
    found, expected = (getattr(model, method)(texts, **options) for model in both)
    assert type(found) is type(expected)
    if isinstance(expected, list):
        assert {type(row) for row in found} == {type(row) for row in expected}
        found, expected = torch.stack(found), torch.stack(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    # A value at the edge of a step may fall to either side.
    steps = 1 if options.get("precision") == "uint8" else 0
    assert np.abs(np.asarray(found, dtype=float) - np.asarray(expected, dtype=float)).max() <= max(steps, TOLERANCE)


def test_live_similarity(both: tuple[SentenceTransformerView, Any]) -> None:
    ours, reference = both
    a, b = ours.encode(TEXTS), ours.encode(TEXTS[::-1], convert_to_tensor=True)
    for method in ("similarity", "similarity_pairwise"):
        found, expected = getattr(ours, method)(a, b), getattr(reference, method)(a, b)
        assert torch.equal(found, expected)
    assert float(ours.similarity(a[0], a[0])) == pytest.approx(1, abs=1e-6)


def test_live_a_prompt_that_is_there_if_empty() -> None:
    folder = DATA / "tiny-bert"
    expected = theirs(folder).encode(TEXTS, prompt_name="query")
    assert np.abs(view(folder).encode(TEXTS, prompt_name="query") - expected).max() <= TOLERANCE
    with pytest.raises(ValueError, match="prompt_name 'corpus' is not among"):
        view(folder).encode(TEXTS, prompt_name="corpus")


def test_live_what_a_model_says_of_itself(prompted: Path) -> None:
    ours, reference = view(prompted), theirs(prompted)
    for name in (
        "prompts",
        "default_prompt_name",
        "similarity_fn_name",
        "truncate_dim",
        "device",
        "dtype",
        "max_seq_length",
    ):
        assert getattr(ours, name) == getattr(reference, name), name
    assert ours.get_embedding_dimension() == reference.get_embedding_dimension() == 32
    assert ours.get_sentence_embedding_dimension() == 32
    ours.max_seq_length = reference.max_seq_length = 5
    assert ours.model.max_seq_length == 5
    text = "the wing flow of heat in the layer"
    assert np.abs(ours.encode(text) - reference.encode(text)).max() <= TOLERANCE
    assert np.array_equal(ours.encode(sentences=[text])[0], ours.encode(text))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": {}}, "leave pool and device None"),
        ({"device": "cuda:1"}, "leave pool and device None"),
        ({"device": ["cpu", "cpu"]}, "leave pool and device None"),
        ({"output_value": "token_embeddings"}, "only the embeddings of whole texts"),
        ({"batch_size": 0}, "batch_size 0"),
    ],
)
def test_what_a_view_cannot_do(options: dict[str, Any], message: str) -> None:
    model = view(DATA / "tiny-bert")
    with pytest.raises(ValueError, match=message):
        model.encode(TEXTS, **options)
    with pytest.raises(ValueError, match="without a pool"):
        model.start_multi_process_pool()
    with pytest.raises(TypeError, match="encode needs texts"):
        model.encode()
