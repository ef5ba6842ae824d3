"""Retrieval figures against values worked out by hand and sentence-transformers; folders; the report of convert."""

import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel, cli, convert
from mlx_embed.checkpoint.folder import E5_PROMPTS
from mlx_embed.evaluation import Collection, ndcg_at_10, quality, read_collection, top_10, top_10_overlap
from tests import oracles
from tests.conftest import DATA

WORDS = ["the", "wing", "flow", "of", "heat", "boundary", "layer", "speed", "index", "query", "note", "code"]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=n)) for n in rng.integers(1, 30, size=count)]


def beir(folder: Path, documents: int = 30, queries: int = 5) -> Path:
    """A folder in BEIR's layout; the first query is not judged, and one judgement is of no query."""
    rng = np.random.default_rng(0)
    (folder / "qrels").mkdir(parents=True)
    rows = enumerate(texts(documents, 1))
    jsonl(folder / "corpus.jsonl", [{"_id": f"d{i}", "title": "a note", "text": text} for i, text in rows])
    jsonl(folder / "queries.jsonl", [{"_id": f"q{i}", "text": text} for i, text in enumerate(texts(queries, 2))])
    lines = ["query-id\tcorpus-id\tscore", "other\td1\t1"]
    for query in range(1, queries):
        lines += [f"q{query}\td{i}\t{rng.integers(0, 3)}" for i in rng.permutation(documents)[:6]]
    (folder / "qrels/test.tsv").write_text("\n".join(lines) + "\n")
    return folder


def cranfield(folder: Path) -> Path:
    folder.mkdir()
    jsonl(
        folder / "docs.jsonl", [{"id": i, "title": "left out", "text": t} for i, t in enumerate(["the wing", "", "a"])]
    )
    jsonl(folder / "queries.jsonl", [{"id": 1, "cran_no": 7, "text": "the\u2028wing"}])
    (folder / "qrels.tsv").write_text("1\t0\t1\n1\t2\t4\n")
    return folder


@pytest.mark.parametrize("layout", [beir, cranfield])
def test_the_first_lines_count(layout: Callable[[Path], Path], tmp_path: Path) -> None:
    """Behind a byte order mark, and where judgements have no names of columns."""
    wanted = read_collection(layout(tmp_path / "plain"))
    folder = layout(tmp_path / "marked")
    for path in (path for path in folder.rglob("*") if path.is_file()):
        text = path.read_text(encoding="utf-8")
        path.write_text("\ufeff" + text.removeprefix("query-id\tcorpus-id\tscore\n"), encoding="utf-8")
    assert read_collection(folder) == wanted


def test_ndcg_by_hand() -> None:
    gains = {"q": {"a": 3, "b": 2, "c": 1, "never found": 2}}
    # ideal: 3/log2(2) + 2/log2(3) + 2/log2(4) + 1/log2(5) = 3 + 1.261860 + 1 + 0.430677 = 5.692536
    # c x a: 1/log2(2) + 0 + 3/log2(4) = 2.5
    assert ndcg_at_10({"q": ["c", "x", "a"]}, gains) == pytest.approx(2.5 / 5.692536, abs=1e-6)
    assert ndcg_at_10({"q": ["a", "b", "never found", "c"]}, gains) == pytest.approx(1)
    assert ndcg_at_10({"q": ["x", "y"]}, gains) == 0
    assert ndcg_at_10({"q": []}, gains) == 0
    # The eleventh counts neither as found nor in the ideal.
    assert ndcg_at_10({"q": [*"0123456789", "a"]}, gains) == 0
    many = {"q": {str(i): 1.0 for i in range(20)}}
    assert ndcg_at_10({"q": [str(i) for i in range(10)]}, many) == pytest.approx(1)
    # Queries without a relevant document do not count; the others count alike.
    two = {"q": {"a": 1.0}, "r": {"a": 1.0}, "s": {"a": 0.0}}
    found = {"q": ["x", "a"], "r": ["a"], "s": ["a"], "t": ["a"]}
    assert ndcg_at_10(found, two) == pytest.approx((0.630930 + 1) / 2, abs=1e-6)
    with pytest.raises(ValueError, match="No query has a relevant document"):
        ndcg_at_10({"q": ["a"]}, {"q": {"a": 0.0}})


def test_overlap_by_hand() -> None:
    ten = list("abcdefghij")
    assert top_10_overlap({"q": ten}, {"q": ten[::-1]}) == 1
    assert top_10_overlap({"q": ten}, {"q": [*"abc", *"1234567"]}) == pytest.approx(0.3)
    assert top_10_overlap({"q": ten, "r": ten}, {"q": ten, "r": list("0123456789")}) == pytest.approx(0.5)
    assert top_10_overlap({"q": [*ten, "k"]}, {"q": [*ten[1:], "k", "a"]}) == pytest.approx(0.9)
    assert top_10_overlap({"q": ["a", "b"]}, {"q": ["b", "c"]}) == 0.5, "a folder of fewer than ten documents"


def test_top_10_is_by_the_models_similarity(tiny_bert: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = Collection({f"d{i}": t for i, t in enumerate(texts(30, 1))}, {"a": "the wing", "b": "heat"}, {})
    scores = tiny_bert.similarity(tiny_bert.encode(["the wing", "heat"]), tiny_bert.encode(texts(30, 1)))
    expected = {q: [f"d{i}" for i in np.argsort(-row)[:10]] for q, row in zip("ab", scores, strict=True)}
    assert top_10(tiny_bert, collection) == expected
    monkeypatch.setattr("mlx_embed.evaluation._BLOCK", 1)
    assert top_10(tiny_bert, collection) == expected, "one query at a time"


def test_live_evaluator(tmp_path: Path) -> None:
    """sentence-transformers' evaluator, which knows relevant and irrelevant only, on its own vectors."""
    evaluation = oracles.sentence_transformers("sentence_transformer.evaluation")
    from sentence_transformers import SentenceTransformer

    collection = read_collection(beir(tmp_path / "data", documents=60, queries=20))
    relevant = {q: {d for d, gain in judged.items() if gain > 0} for q, judged in collection.gains.items()}
    evaluator = evaluation.InformationRetrievalEvaluator(collection.queries, collection.documents, relevant)
    expected = evaluator(SentenceTransformer(str(DATA / "tiny-bert"), device="cpu"))["cosine_ndcg@10"]
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")
    binary = {q: dict.fromkeys(documents, 1.0) for q, documents in relevant.items()}
    assert 0 < expected < 1
    assert ndcg_at_10(top_10(model, collection), binary) == pytest.approx(expected, abs=1e-6)


def test_layouts(tmp_path: Path) -> None:
    found = read_collection(beir(tmp_path / "beir"))
    assert found.documents["d3"] == "a note " + texts(30, 1)[3]
    assert found.queries["q4"] == texts(5, 2)[4]
    assert set(found.gains) == {"other", "q1", "q2", "q3", "q4"}
    assert {gain for judged in found.gains.values() for gain in judged.values()} == {0.0, 1.0, 2.0}
    found = read_collection(cranfield(tmp_path / "cranfield"))
    assert found.documents == {"0": "the wing", "1": "", "2": "a"}
    assert found.queries == {"1": "the\u2028wing"}
    assert found.gains == {"1": {"0": 4, "2": 1}}
    (tmp_path / "cranfield/qrels.tsv").unlink()
    assert read_collection(str(tmp_path / "cranfield")).gains == {}


@pytest.mark.parametrize("layout", [0, 1])
def test_a_folder_that_gzip_has_packed(layout: int, tmp_path: Path) -> None:
    folder = (beir, cranfield)[layout](tmp_path / "x")
    expected = read_collection(folder)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert read_collection(folder) == expected
    (folder / "queries.jsonl.gz").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"queries\.jsonl\.gz is not gzip"):
        read_collection(folder)


def rewrite(name: str, content: bytes | None) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink() if content is None else (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rewrite("docs.jsonl", None), r"neither corpus\.jsonl \(BEIR's layout\) nor docs\.jsonl"),
        (rewrite("docs.jsonl", b"\n"), r"docs\.jsonl is empty"),
        (rewrite("docs.jsonl", b"\xff"), r"docs\.jsonl is not UTF-8"),
        (rewrite("docs.jsonl", b'{"id": 1, "text": "a"}\n{"id"\n'), r"docs\.jsonl:2 is no JSON object"),
        (rewrite("docs.jsonl", b"[1]"), r"docs\.jsonl:1 is no JSON object"),
        (rewrite("docs.jsonl", b'{"_id": 1, "text": "a"}'), r'no JSON object with "id" and "text"'),
        (rewrite("docs.jsonl", b'{"id": 1, "text": null}'), r"docs\.jsonl:1 needs text or a whole number"),
        (rewrite("docs.jsonl", b'{"id": 1.5, "text": ""}'), r"docs\.jsonl:1 needs text or a whole number"),
        (rewrite("docs.jsonl", b'{"id": 1, "text": ""}\n' * 2), r"docs\.jsonl:2 has the id 1 of a line before it"),
        (rewrite("queries.jsonl", None), r"queries\.jsonl is missing"),
        (rewrite("qrels.tsv", b"1\t0\n"), r"qrels\.tsv:1 has 2 columns"),
        (rewrite("qrels.tsv", b"1\t0\t0\n"), r"qrels\.tsv:1 has the relevance '0'.*use BEIR's layout"),
        (rewrite("qrels.tsv", b"2\t0\t1\n"), r"qrels\.tsv names no relevant document for any of the queries"),
        (rewrite("qrels.tsv", b""), r"qrels\.tsv names no relevant document"),
        (rewrite("docs.jsonl", b'{"id": "other", "text": "a"}'), r"its document '\d+', for example, is not there"),
    ],
)
def test_bad_folders(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    folder = cranfield(tmp_path / "data")
    damage(folder)
    with pytest.raises(ValueError, match=message):
        convert(DATA / "tiny-bert", tmp_path / "out", evaluate=folder)
    assert not (tmp_path / "out").exists()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^There is no folder .*absent to evaluate on; BEIR's data sets are such"):
        read_collection(tmp_path / "absent")


@pytest.mark.parametrize("relevance", ["much", "nan", "inf", ""])
def test_bad_gains(relevance: str, tmp_path: Path) -> None:
    (beir(tmp_path / "data") / "qrels/test.tsv").write_text(f"query-id\tcorpus-id\tscore\nq1\td1\t{relevance}\n")
    with pytest.raises(ValueError, match=rf"test\.tsv:2 has the relevance '{relevance}', where a number is needed"):
        read_collection(tmp_path / "data")


def test_the_report_of_convert(tmp_path: Path) -> None:
    folder = beir(tmp_path / "data")
    assert convert(DATA / "tiny-bert", tmp_path / "a").quality is None
    same = convert(DATA / "tiny-bert", tmp_path / "b", evaluate=folder).quality
    assert same is not None
    assert (same.documents, same.queries, same.ndcg_drop, same.top_10_overlap) == (30, 5, 0, 1)
    report = convert(DATA / "tiny-bert", tmp_path / "c", quantize=4, group_size=32, evaluate=folder)
    found = report.quality
    assert found is not None
    collection = read_collection(folder)
    rankings = [top_10(EmbeddingModel.from_pretrained(f), collection) for f in (DATA / "tiny-bert", tmp_path / "c")]
    # As the documentation's figures: relevant or not, whatever the degree.
    binary = {q: {d: min(gain, 1.0) for d, gain in judged.items()} for q, judged in collection.gains.items()}
    assert binary != collection.gains
    assert found.ndcg_before == ndcg_at_10(rankings[0], binary)
    assert found.ndcg_after == ndcg_at_10(rankings[1], binary)
    assert found.ndcg_drop == found.ndcg_before - found.ndcg_after != 0
    assert found.top_10_overlap == top_10_overlap(*rankings) < 1
    assert (found.documents, found.queries) == (30, 5)


def test_an_evaluation_shows_how_far_it_is(
    tmp_path: Path,
    tiny_bert: EmbeddingModel,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One bar over both models' documents and queries, where the package logs at INFO, as on a terminal."""
    caplog.set_level(logging.INFO, logger="mlx_embed")
    monkeypatch.setattr("mlx_embed.texts.BAR_AFTER", 0.0)
    quality(tiny_bert, tiny_bert, read_collection(beir(tmp_path / "data")))
    said = capsys.readouterr().err
    assert "Evaluating: 100%" in said
    assert "70/70" in said
    assert "Encoding" not in said
    assert "Embedding 35 documents and queries with both models." in caplog.text


def test_prompts_are_those_of_queries_and_documents(checkpoint: Path, tmp_path: Path) -> None:
    source = checkpoint.rename(tmp_path / "e5-small-v2")
    model = EmbeddingModel.from_pretrained(source)
    collection = read_collection(beir(tmp_path / "data"))
    prefixed = Collection(
        {name: E5_PROMPTS["passage"] + text for name, text in collection.documents.items()},
        {name: E5_PROMPTS["query"] + text for name, text in collection.queries.items()},
        {},
    )
    plain = EmbeddingModel.from_pretrained(DATA / "tiny-bert")
    assert top_10(model, collection) == top_10(plain, prefixed) != top_10(plain, collection)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = beir(tmp_path / "data")
    command = ["convert", str(DATA / "tiny-bert"), str(tmp_path / "a"), "--overwrite", "--evaluate", str(folder)]
    assert cli.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == "retrieval of 30 documents by 5 queries:"
    assert lines[4].startswith("  nDCG@10: 0.")
    assert lines[4].endswith(" (drop 0.0000)")
    assert lines[5] == "  top 10 in common: 100.0%"
    assert (
        lines[6] == "  nDCG@10 is sentence-transformers' evaluator's: a document is relevant or not, whatever its gain."
    )
    (folder / "qrels/test.tsv").unlink()
    assert cli.main(command) == 0
    assert "nDCG" not in capsys.readouterr().out
    assert cli.main([*command[:-1], str(tmp_path)]) == 2
    assert "neither corpus.jsonl" in capsys.readouterr().err


def test_a_judgement_below_zero_is_no_gain(tmp_path: Path) -> None:
    """Some collections mark spam so; trec_eval takes it for irrelevant."""
    path = beir(tmp_path / "beir") / "qrels/test.tsv"
    path.write_text(path.read_text() + "q1\td29\t-2\nq2\td28\t-1\n")
    gains = read_collection(tmp_path / "beir").gains
    assert (gains["q1"]["d29"], gains["q2"]["d28"]) == (0, 0)


@pytest.mark.parametrize(("rank", "expected"), [(1, 1), (3, 1 / 2), (7, 1 / 3), (10, np.log(2) / np.log(11)), (11, 0)])
def test_the_rank_of_the_one_relevant_document(rank: int, expected: float) -> None:
    found = [f"d{i}" for i in range(1, 16)]
    assert ndcg_at_10({"q": found}, {"q": {f"d{rank}": 1.0, "d15": 0.0}}) == pytest.approx(expected)
