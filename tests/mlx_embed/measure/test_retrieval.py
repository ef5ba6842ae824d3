"""What `mlx-embed evaluate` finds: metrics by hand and by sentence-transformers, intervals, rerankers, the page."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel, ModelNotFoundError, TruncationWarning, cli
from mlx_embed.evaluation import Collection, read_collection, recall, reciprocal_rank
from mlx_embed.measure import retrieval
from mlx_embed.measure.retrieval import Evaluation, evaluate, interval, judged_runs, most_disputed, reranked
from mlx_embed.measure.retrieval_html import as_text, page, quality_and_speed
from tests import oracles
from tests.checkpoints import dense, pooling, with_modules
from tests.checkpoints import reranker as make_reranker
from tests.conftest import DATA
from tests.mlx_embed.test_evaluation import beir

TINY = str(DATA / "tiny-bert")
OTHER = str(DATA / "tiny-mpnet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return beir(tmp_path_factory.mktemp("data") / "found", documents=60, queries=20)


@pytest.fixture(scope="module")
def evaluation(folder: Path) -> Evaluation:
    return evaluate(read_collection(folder), [TINY, OTHER], folder="found")


def run(name: str, **rankings: list[str]) -> retrieval.Run:
    return retrieval.Run(name, name, None, "float32", "cpu", 8, 100.0, 10.0, rankings)


def test_recall_and_rank_by_hand() -> None:
    judged = {"a": 1.0, "b": 2.0, "never found": 1.0, "judged irrelevant": 0.0}
    assert recall(["a", "x", "b"], judged, 10) == pytest.approx(2 / 3)
    assert recall(["a", "x", "b"], judged, 2) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x", "judged irrelevant", "b", "a"], judged) == pytest.approx(1 / 3)
    assert reciprocal_rank([*"0123456789", "a"], judged) == 0


def test_live_metrics(folder: Path, evaluation: Evaluation) -> None:
    """All of them are those of sentence-transformers' evaluator, on its own vectors."""
    module = oracles.sentence_transformers("sentence_transformer.evaluation")
    from sentence_transformers import SentenceTransformer

    collection = read_collection(folder)
    relevant = {q: {d for d, gain in judged.items() if gain > 0} for q, judged in collection.gains.items()}
    evaluator = module.InformationRetrievalEvaluator(
        collection.queries, collection.documents, relevant, precision_recall_at_k=[10, 100]
    )
    expected = evaluator(SentenceTransformer(TINY, device="cpu"))
    found = evaluation.contenders[0].scores
    for name, theirs in (("nDCG@10", "ndcg@10"), ("recall@10", "recall@10"), ("MRR@10", "mrr@10")):
        assert found[name].mean == pytest.approx(expected[f"cosine_{theirs}"], abs=1e-6)
        assert 0 < found[name].low < found[name].mean < found[name].high < 1
    assert found["recall@100"].mean == pytest.approx(expected["cosine_recall@100"], abs=1e-6)


def test_an_interval_holds_95_of_100_samples() -> None:
    # Samples of one value each, so that their means are the values.
    found = interval(np.arange(1001) / 1000, np.arange(1001)[:, None])
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.025, 0.975))


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Of 200 sets of 50 values about 190 intervals have the mean that they were drawn with."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, 50, size=(500, 50))
    found = [interval(rng.normal(0.4, 0.1, size=50), picks) for _ in range(200)]
    assert 180 <= sum(i.low < 0.4 < i.high for i in found) <= 198


def test_a_change_is_query_by_query() -> None:
    """Two contenders that differ by the same on each query have an interval of no width."""
    gains = {q: {"a": 1.0} for q in "pqr"}
    first, second = judged_runs(
        [run("1", p=["x", "a"], q=["x", "a"], r=["x", "a"]), run("2", p=["a"], q=["a"], r=["a"])], "pqr", gains
    )
    assert first.change is None
    assert second.change is not None
    assert second.change.low == pytest.approx(second.change.high) == pytest.approx(1 - 0.630930, abs=1e-6)


def test_queries_that_differ_most_come_first() -> None:
    gains = {"p": {"a": 1.0}, "q": {"a": 1.0}, "r": {"a": 1.0}}
    runs = [run("1", p=["a"], q=["a"], r=["a"]), run("2", p=["x", "a"], q=["x"], r=["a"])]
    collection = Collection({"a": "the wing", "x": "heat"}, {q: f"query {q}" for q in "pqr"}, gains)
    found = most_disputed(judged_runs(runs, "pqr", gains), runs, "pqr", gains, collection)
    assert [query.query for query in found] == ["q", "p"], "on r they do not differ"
    assert [(a.contender, a.documents) for a in found[0].answers] == [("1", (("a", True),)), ("2", (("x", False),))]


def test_a_reranker_reorders_the_first(tmp_path: Path) -> None:
    make_reranker("bert", 1, tmp_path)
    model = CrossEncoder.from_pretrained(tmp_path)
    documents = {"a": "the wing", "b": "heat of the boundary layer", "c": "index"}
    collection = Collection(documents, {"q": "flow", "r": "the"}, {})
    found = reranked(model, {"q": ["b", "a", "c"], "r": ["c", "b"]}, collection)
    for query, ids in (("q", ["b", "a", "c"]), ("r", ["c", "b"])):
        hits = model.rank(collection.queries[query], [documents[i] for i in ids])
        assert found[query] == [ids[hit["corpus_id"]] for hit in hits]


def test_contenders_and_what_they_cost(folder: Path, tmp_path: Path) -> None:
    make_reranker("bert", 1, tmp_path / "again")
    found = evaluate(
        read_collection(folder),
        [TINY],
        dtypes=["float32", "bfloat16"],
        rerankers=[str(tmp_path / "again")],
        truncate_dim=8,
    )
    assert [c.name for c in found.contenders] == [
        f"tiny-bert, {dtype}{again}" for dtype in ("float32", "bfloat16") for again in ("", " + again")
    ]
    alone, again = found.contenders[:2]
    assert (alone.dimension, alone.bytes) == (8, 32)
    assert again.documents_per_second == alone.documents_per_second > 0
    assert 0 < again.queries_per_second < alone.queries_per_second
    assert again.scores["recall@100"] == alone.scores["recall@100"], "the same documents in another order"


def test_gains_as_they_were_judged(folder: Path, evaluation: Evaluation) -> None:
    graded = evaluate(read_collection(folder), [TINY], graded=True)
    assert graded.contenders[0].scores["nDCG@10"] != evaluation.contenders[0].scores["nDCG@10"]
    assert graded.contenders[0].scores["recall@10"] == evaluation.contenders[0].scores["recall@10"]


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert cli.main(["evaluate", str(folder), "--model", TINY, "--device", "cpu", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    score = found["contenders"][0]["scores"]["nDCG@10"]
    assert f"{score['mean']:.3f} ({score['low']:.3f} to {score['high']:.3f})" in printed
    assert "60 documents and 20 queries of found, 19 of which" in printed
    assert len(found["judged"]) == len(found["contenders"][0]["ndcg"]) == 19


def test_how_many_documents_are_cut_is_said_of_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collection = read_collection(folder)
    documents = {
        name: "wing " * 99 if int(i) % 3 else text for i, (name, text) in enumerate(collection.documents.items())
    }
    with pytest.warns(TruncationWarning) as said:
        evaluate(Collection(documents, collection.queries, collection.gains), [TINY])
    [warning] = said
    assert str(warning.message).startswith("40 of 60 documents are longer than the 64 tokens of ")


def test_bad_arguments(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collection = read_collection(folder)
    with pytest.raises(ValueError, match="no model"):
        evaluate(collection, [])
    with pytest.raises(ValueError, match="no judgements"):
        evaluate(Collection(collection.documents, collection.queries, {}), [TINY])
    assert cli.main(["evaluate", str(tmp_path / "scifact")]) == 2
    assert "no folder" in capsys.readouterr().err
    assert cli.main(["evaluate", str(tmp_path)]) == 2
    assert "neither corpus.jsonl" in capsys.readouterr().err
    assert cli.main(["evaluate", str(folder), "--json", str(tmp_path / "no/a.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    queries = (folder / "queries.jsonl").read_bytes()
    for option, file, says in (("--json", tmp_path, "is a folder"), ("--json", folder / "queries.jsonl", "is read")):
        assert cli.main(["evaluate", str(folder), "--model", TINY, option, str(file)]) == 2
        said = capsys.readouterr()
        assert says in said.err
        assert not said.out
    assert (folder / "queries.jsonl").read_bytes() == queries


def test_what_is_wrong_with_the_last_is_said_before_the_first_is_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, several = read_collection(folder), make_reranker("bert", 2, tmp_path / "several")
    monkeypatch.setattr(EmbeddingModel, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("There is no folder absent", {}),
        (f"truncate_dim 30 is not within 1..24, the dimension of {tmp_path / 'cut'}", {"truncate_dim": 30}),
        ("several has 2 labels, and cannot rank", {"rerankers": [str(several)]}),
    ]
    cut = str(with_modules(tmp_path / "cut", [pooling("mean"), dense(32, 24)]))
    for (message, options), other in zip(wrong, ("./absent", cut, OTHER), strict=True):
        with pytest.raises((ValueError, ModelNotFoundError), match=re.escape(message)):
            evaluate(collection, [TINY, other], **options)


def test_the_page(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_embed.pages.charts.svg", lambda spec, label: "<svg></svg>")
    query = replace(evaluation.disputed[0], text="<i>a query</i>")
    found = page(replace(evaluation, disputed=(query,)))
    assert "&lt;i&gt;a query&lt;/i&gt;" in found
    assert found.count("class=relevant") == sum(r for a in query.answers for _, r in a.documents)
    for contender in evaluation.contenders:
        assert found.count(str(contender.scores["nDCG@10"])) >= 1
        assert str(contender.scores["MRR@10"]) in as_text(evaluation)
    values: Any = quality_and_speed(evaluation, "documents_per_second", "", 800)["data"]["values"]
    assert [v["mean"] for v in values] == [c.scores["nDCG@10"].mean for c in evaluation.contenders]


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [str(tmp_path / a / "model") for a in "ab"]
    for path in paths:
        Path(path).mkdir(parents=True)
    assert list(retrieval._names(paths, [None]).values()) == paths
    assert retrieval._names([TINY], [None]) == {(TINY, None): "tiny-bert"}


def test_it_is_the_models_own_search(folder: Path, evaluation: Evaluation, tiny_bert: EmbeddingModel) -> None:
    collection = read_collection(folder)
    scores = tiny_bert.similarity(
        tiny_bert.encode_query(list(collection.queries.values())),
        tiny_bert.encode_document(list(collection.documents.values())),
    )
    names = list(collection.documents)
    for query, row in zip(collection.queries, scores, strict=True):
        answers = [d.answers[0] for d in evaluation.disputed if d.query == query]
        for answer in answers:
            assert [d for d, _ in answer.documents] == [names[i] for i in np.argsort(-row, kind="stable")[:5]]
