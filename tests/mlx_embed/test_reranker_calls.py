"""What people give a reranker: pairs and documents of any kind, options of sentence-transformers, saturated scores."""

import json
from collections import UserDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import CrossEncoder
from mlx_embed.batching import Batch
from tests import oracles
from tests.checkpoints import reranker

TOLERANCE = 1e-5
PAIRS = [("the wing", "heat of the boundary layer"), ("a query of code", ""), ("note", "the wing flow " * 40)]
DOCUMENTS = ["heat of the layer", "wing flow", "note", "code index of the wing"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reranker("bert", 1, tmp_path_factory.mktemp("reranker"))


@pytest.fixture
def model(folder: Path) -> CrossEncoder:
    return CrossEncoder.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    return CrossEncoder.from_pretrained(reranker("bert", 3, tmp_path_factory.mktemp("several")), device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sentences": PAIRS},
            "predict has no option 'sentences': .* first argument, .* and `pairs` of predict",
        ),
        ({"inputs": PAIRS}, "predict has no option 'inputs': .* `pairs` of predict"),
        ({}, r"predict takes \(query, document\) pairs, got a NoneType"),
    ],
)
def test_pairs_by_other_names(model: CrossEncoder, options: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        model.predict(**options)


@pytest.mark.parametrize("dtype", [object, str])
def test_rows_of_an_array(model: CrossEncoder, dtype: type) -> None:
    rows, expected = np.array(PAIRS, dtype=dtype), model.predict(PAIRS)
    assert np.abs(model.predict(rows) - expected).max() <= TOLERANCE
    assert np.abs(model.predict(rows[:2]) - expected[:2]).max() <= TOLERANCE, "two rows are no pair"
    assert model.predict(rows[0]) == pytest.approx(expected[0], abs=TOLERANCE)
    assert np.abs(model.predict(list(rows)) - expected).max() <= TOLERANCE
    assert model.predict(rows[:0]).shape == (0,)


def test_pairs_of_a_table(model: CrossEncoder) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame, expected = pandas.DataFrame(PAIRS, columns=["query", "document"], index=[7, 3, 5]), model.predict(PAIRS)
    for pairs in (
        frame[["query", "document"]].values,
        frame.to_numpy(),
        list(frame.itertuples(index=False)),
        zip(frame["query"], frame["document"], strict=True),
        dict(PAIRS).items(),
    ):
        assert np.abs(model.predict(pairs) - expected).max() <= TOLERANCE
    with pytest.raises(
        TypeError, match=r"got a DataFrame: pass a part of it, frame\[\['query', 'document'\]\]\.values"
    ):
        model.predict(frame)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"query": "a", "document": "b"}, "predict takes .* got a dict"),
        (UserDict(query="a", document="b"), "got a UserDict"),
        ("ab", r"got a str: pass \[\(query, document\)\]"),
        (b"ab", "got a bytes"),
        (None, "got a NoneType"),
        (np.array("ab"), "got a ndarray"),
        (np.array(["a", "b", "c"]), r"pairs\[0\] is 'a'"),
        (np.array([["a", "b", "c"]]), r"pairs\[0\] is \['a', 'b', 'c'\]"),
        (np.array([[["a", "b"]]]), r"pairs\[0\] is \[\['a', 'b'\]\]"),
        (np.ones((2, 2)), r"pairs\[0\] is \[1.0, 1.0\]"),
        ([("a", "b"), ("a", float("nan"))], r"pairs\[1\] is \('a', nan\)"),
        ([("a", "b"), {"query": "a", "document": "b"}], r"pairs\[1\] is \{'query'"),
        ([("a", "b"), {"a", "b"}], r"pairs\[1\] is \{"),
    ],
)
def test_no_pairs(model: CrossEncoder, given: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "tokenizer", None)
    with pytest.raises(TypeError, match=message):
        model.predict(given)


def series(index: list[int]) -> Any:
    return pytest.importorskip("pandas", reason="pandas is not installed").Series(DOCUMENTS, index=index)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tuple(DOCUMENTS),
        lambda: (document for document in DOCUMENTS),
        lambda: np.array(DOCUMENTS),
        lambda: np.array(DOCUMENTS, dtype=object),
        lambda: dict.fromkeys(DOCUMENTS).keys(),
        lambda: series([3, 2, 1, 0]),
        lambda: series([10, 20, 30, 10]),
    ],
)
def test_documents_of_any_kind(model: CrossEncoder, make: Callable[[], Any]) -> None:
    expected = model.rank("the wing", DOCUMENTS, return_documents=True)
    assert [entry["text"] for entry in expected] == [DOCUMENTS[entry["corpus_id"]] for entry in expected]
    assert model.rank("the wing", make(), return_documents=True) == expected
    assert model.rank("the wing", make(), np.int64(2), return_documents=True) == expected[:2]


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        ("a", "note", r"got a str: pass \[document\]"),
        ("a", {"x": "note"}, "rank takes an iterable of documents, got a dict"),
        ("a", None, "got a NoneType"),
        ("a", ["note", None], r"documents\[1\] is a NoneType"),
        ("a", np.array([["a", "b"]]), r"documents\[0\] is an ndarray"),
        (None, ["note"], "query is a NoneType"),
        (["a"], ["note"], "query is a list"),
    ],
)
def test_nothing_to_rank(model: CrossEncoder, query: Any, documents: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        model.rank(query, documents)


def test_a_table_is_not_ranked(model: CrossEncoder) -> None:
    with pytest.raises(TypeError, match="got a DataFrame: pass a part of it"):
        model.rank("a", series([0, 1, 2, 3]).to_frame())


def with_logits(model: CrossEncoder, logits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.float32(logits)[:, None]
    monkeypatch.setattr(model, "_logits", lambda pairs, *given: rows[: len(pairs)])


@pytest.mark.parametrize("activation", ["Sigmoid", "Tanh", "Identity", "ReLU", "LogSigmoid"])
@pytest.mark.parametrize("logits", [[30, 40, 35, 50], [-300, -110, -120, -400], [-40, 40, -41, 41]])
def test_saturated_scores_keep_the_order(
    model: CrossEncoder, activation: str, logits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_logits(model, logits, monkeypatch)
    found = [entry["corpus_id"] for entry in model.rank("a", DOCUMENTS, activation=activation)]
    assert found == np.argsort(-np.array(logits)).tolist()


def test_equal_logits_keep_the_order_of_the_documents(model: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    with_logits(model, [1, 2, 1, 2], monkeypatch)
    assert [entry["corpus_id"] for entry in model.rank("a", DOCUMENTS)] == [1, 3, 0, 2]


@pytest.mark.parametrize("activation", ["GELU", "SiLU"])
def test_scores_that_fall_and_rise_rank_by_themselves(
    model: CrossEncoder, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_logits(model, [-1, -5, 1, -2], monkeypatch)
    found = model.rank("a", DOCUMENTS, activation=activation)
    assert [entry["corpus_id"] for entry in found][:2] == [2, 1]
    assert np.all(np.diff([entry["score"] for entry in found]) <= 0)


def test_scores_are_exact_where_they_are_small(model: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    with_logits(model, [-20, -80, 20], monkeypatch)
    found = model.predict(PAIRS)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.float32(1 / (1 + np.exp(-np.float64([-20, -80, 20])))))


def test_several_labels(several: CrossEncoder) -> None:
    logits = several.predict(PAIRS).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    for options in (
        {"apply_softmax": True},
        {"activation": "Softmax"},
        {"activation": "LogSoftmax", "apply_softmax": 1},
    ):
        assert np.allclose(several.predict(PAIRS, **options), expected, rtol=1e-6)
    assert np.allclose(several.predict(PAIRS, activation="LogSoftmax"), np.log(expected), rtol=1e-5)
    assert several.predict(PAIRS[0], activation="Softmax").shape == (3,)


def test_live_options_of_sentence_transformers(
    model: CrossEncoder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence_transformers = oracles.sentence_transformers()
    import torch

    reference = sentence_transformers.CrossEncoder(str(folder), device="cpu")
    sizes = []
    batches = model.engine.batches

    def counted(*arguments: Any, **named: Any) -> Iterator[Batch]:
        for batch in batches(*arguments, **named):
            sizes.append(len(batch.texts))
            yield batch

    monkeypatch.setattr(model.engine, "batches", counted)
    options: dict[str, Any] = {
        "batch_size": 2,
        "prompt": "note ",
        "prompt_name": None,
        "activation_fn": torch.nn.Tanh(),
        "show_progress_bar": False,
    }
    found, expected = model.predict(PAIRS, **options), reference.predict(PAIRS, **options)
    assert np.abs(found - expected).max() <= TOLERANCE
    assert (sum(sizes), max(sizes)) == (3, 2)
    ranked = model.rank("the wing", DOCUMENTS, **options)
    best = reference.rank("the wing", DOCUMENTS, **options)
    assert [entry["corpus_id"] for entry in ranked] == [entry["corpus_id"] for entry in best]
    for length in (9, 12, 64):
        model.max_seq_length = reference.max_seq_length = length
        assert np.abs(model.predict(PAIRS) - reference.predict(PAIRS)).max() <= TOLERANCE
    assert json.dumps(ranked)
