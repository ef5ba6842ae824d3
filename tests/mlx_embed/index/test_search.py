"""What a search finds, against all scores sorted in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import EmbeddingModel
from mlx_embed.index import Hit, Index, vector_search
from tests.mlx_embed.index.conftest import DIMENSION, ROW_DTYPES, fill, names, texts, vectors


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The vectors of the queries "0", "1", ..., whatever the model would say."""
    queries = vectors(40, seed=99)
    monkeypatch.setattr(Index, "_query_vectors", lambda self, given: queries[[int(one) for one in given]])
    return queries


def exact(queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = (queries.astype(np.float64) @ rows.astype(np.float64).T).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("row_dtype", ROW_DTYPES)
def test_every_row_dtype_finds_the_exact_best(
    model: EmbeddingModel,
    tmp_path: Path,
    asked: np.ndarray,
    row_dtype: Any,
    native: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if native and not cpu.available():
        pytest.skip(cpu.why_unavailable())
    if not native:
        monkeypatch.setattr(vector_search.cpu, "available", lambda: False)
        monkeypatch.setattr(vector_search, "_COPIED_ROWS", 1024)
    monkeypatch.setattr("mlx_embed.index.transaction.SEGMENT_ROWS", 1280)
    rows, all_names = vectors(3000), names(3000)
    rows[1536:] = rows[1536:] * 0.001 + rows[7]  # crowds, in which eight bits see no difference
    for start in (0, 1280, 2560):  # the first block of each segment, which has no error
        rows[start : start + 256] = np.sign(rows[start : start + 256]) / np.sqrt(DIMENSION)
    with Index.create(tmp_path / "index", model, row_dtype=row_dtype) as index:
        for start in range(0, 3000, 700):  # blocks and segments that are filled in several goes
            part = slice(start, start + 700)
            index.add(all_names[part], texts(3000)[part], vectors=rows[part])
        stored = np.concatenate([s.exact for s in index._store._current(index._store._writer).segments])  # type: ignore[arg-type]
        for k in (1, 10, 100):
            order, scores = exact(asked, stored, k)
            found = index.search([str(i) for i in range(40)], k, mode="vector")
            alone = [index.search(str(i), k, mode="vector") for i in range(8)]
            for row, best, hits in zip(order, scores, found, strict=True):
                assert [hit.score for hit in hits] == best.tolist()
                assert [hit.id for hit in hits] == [all_names[i] for i in row]
                assert [hit.vector_rank for hit in hits] == list(range(1, k + 1))
            assert alone == found[:8]


def test_equal_scores_are_in_the_order_of_ids_however_they_came(model: EmbeddingModel, tmp_path: Path) -> None:
    same = ["the wing"] * 50 + ["the wing stalls"] * 10
    ids = names(60)
    orders = [range(60), range(59, -1, -1), np.random.default_rng(3).permutation(60).tolist()]
    found = []
    for number, order in enumerate(orders):
        with Index.create(tmp_path / str(number), model) as index:
            index.add([ids[i] for i in order], [same[i] for i in order])
            index.delete(ids[3:5])
            index.add([ids[3]], [same[3]])
            found.append([index.search("the wing", 7, mode=mode) for mode in ("vector", "text", "hybrid")])
    assert [hit.id for hit in found[0][0]] == [*ids[:4], *ids[5:8]]
    assert found[0] == found[1] == found[2]


def test_filters_act_before_the_best_are_taken(index: Index, asked: np.ndarray) -> None:
    fill(index, 500)
    rows = vectors(500)
    fits = [i for i in range(500) if i % 20 == 7]
    order, _ = exact(asked[:3], rows[fits], 10)
    for mode in ("vector", "text", "hybrid"):
        for hits in index.search(["0", "1", "2"], 10, mode=mode, filter={"year": 2007}):
            assert all(hit.metadata["year"] == 2007 for hit in hits)
    for row, hits in zip(order, index.search(["0", "1", "2"], 10, mode="vector", filter={"year": 2007}), strict=True):
        assert [hit.id for hit in hits] == [names(500)[fits[i]] for i in row]
    assert index.search("0", filter={"year": 1}) == []
    assert len(index.search("0", 400, mode="vector", filter={"year": {"<": 2003}})) == 75


def test_deleted_texts_take_no_place(index: Index, asked: np.ndarray) -> None:
    fill(index, 400)
    best = [hit.id for hit in index.search("0", 30, mode="vector")]
    index.delete(best[:25])
    assert [hit.id for hit in index.search("0", 5, mode="vector")] == best[25:]


def test_blank_texts_and_zero_vectors_are_last_and_hide_nothing(index: Index, model: EmbeddingModel) -> None:
    index.add(["blank", "white", "zero"], ["", " \n\t", "the wing"], vectors=None)
    index.upsert(["zero"], ["the wing"], vectors=np.zeros((1, DIMENSION)))
    away = -model.encode_query("heat")[None]
    index.add(["far"], ["something else"], vectors=away)
    found = index.search("heat", 10, mode="vector")
    assert [hit.id for hit in found] == ["far", "blank", "white", "zero"]
    assert found[0].score == pytest.approx(-1, abs=1e-6)
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert [hit.id for hit in index.search("heat", 1, mode="vector")] == ["far"]
    assert [hit.id for hit in index.search("wing", mode="text")] == ["zero"]
    assert index.search("heat", 10, mode="vector", filter={"path": "x"}) == []


def test_a_blank_query_finds_nothing(index: Index) -> None:
    fill(index, 20)
    index.add(["blank"], [" "])
    for query in ("", "  \n", "?!"):
        assert index.search(query, mode="text") == []
    assert index.search("", mode="hybrid") == index.search(" ", mode="vector") == []
    assert [len(hits) for hits in index.search(["", "wing"], 30, mode="vector")] == [0, 21]


def test_words_are_found_by_their_stems_and_any_text_is_a_query(index: Index) -> None:
    index.add(["a", "b", "c"], ["The wings stalled.", "It's a NEAR miss", "don't-care x_y"])
    assert [hit.id for hit in index.search("stalling wing", mode="text")] == ["a"]
    for query in ('"near" AND (miss OR', "near* NEAR/2 miss", "text:near -miss", "near\0miss", "'; DROP TABLE chunk"):
        assert [hit.id for hit in index.search(query, mode="text")] == (["b"] if "near" in query else [])
    assert [hit.id for hit in index.search("what does X_Y say?", mode="text")] == ["c"]
    assert [hit.id for hit in index.search("miss " * 100_000, mode="text")] == ["b"]


def test_hybrid_fuses_the_ranks(index: Index, asked: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(index, 200)
    vector = index.search("0", 50, mode="vector")
    monkeypatch.setattr("mlx_embed.index.text_search.match", lambda query: '"wing" OR "heat"')
    text = index.search("0", 50, mode="text")
    ranks: dict[str, list[int | None]] = {}
    for way, hits in enumerate((vector, text)):
        for rank, hit in enumerate(hits, start=1):
            ranks.setdefault(hit.id, [None, None])[way] = rank
    scores = {name: sum(1 / (60 + rank) for rank in pair if rank) for name, pair in ranks.items()}
    wanted = sorted(scores, key=lambda name: (-scores[name], name))[:20]
    found = index.search("0", 20)
    assert [hit.id for hit in found] == wanted
    assert [hit.score for hit in found] == pytest.approx([scores[name] for name in wanted])
    assert [[hit.vector_rank, hit.text_rank] for hit in found] == [ranks[name] for name in wanted]


class Longest:
    """A reranker that likes long texts."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def predict(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        self.asked = pairs
        return np.array([len(text) for _, text in pairs], dtype=np.float32)


def test_the_reranker_reads_the_best_fifty(index: Index, asked: np.ndarray) -> None:
    fill(index, 200)
    reranker: Any = Longest()
    best = index.search("0", 50, mode="vector")
    found = index.search("0", 3, mode="vector", rerank=reranker)
    assert reranker.asked == [("0", hit.text) for hit in best]
    wanted = sorted(best, key=lambda hit: (-len(hit.text), hit.id))[:3]
    assert [(hit.id, hit.score) for hit in found] == [(hit.id, len(hit.text)) for hit in wanted]
    assert [hit.vector_rank for hit in found] == [hit.vector_rank for hit in wanted]


def test_min_score(index: Index, asked: np.ndarray) -> None:
    fill(index, 100)
    every = index.search("0", 100, mode="vector")
    bound = every[4].score
    assert index.search("0", 100, mode="vector", min_score=bound) == every[:5]


def test_a_model_that_compares_by_inner_product(model: EmbeddingModel, tmp_path: Path, asked: np.ndarray) -> None:
    dot = EmbeddingModel.from_pretrained(model.checkpoint.folder, device="cpu")
    dot.similarity_fn_name = "dot"
    rows = vectors(300) * np.linspace(0.1, 9, 300, dtype=np.float32)[:, None]
    with Index.create(tmp_path / "index", dot, row_dtype="int8") as index:
        index.add(names(300), texts(300), vectors=rows)
        order, scores = exact(asked, rows, 10)
        for row, best, hits in zip(
            order, scores, index.search([str(i) for i in range(40)], mode="vector"), strict=True
        ):
            assert [hit.id for hit in hits] == [names(300)[i] for i in row]
            assert [hit.score for hit in hits] == best.tolist()
    dot.similarity_fn_name = "euclidean"
    with pytest.raises(ValueError, match="euclidean"):
        Index.create(tmp_path / "other", dot)


@pytest.mark.parametrize("row_dtype", ROW_DTYPES)
@pytest.mark.parametrize("scale", [1e6, 1e15, 1e-30])
def test_inner_products_of_any_size_are_exact(
    model: EmbeddingModel, tmp_path: Path, asked: np.ndarray, scale: float, row_dtype: Any
) -> None:
    dot = EmbeddingModel.from_pretrained(model.checkpoint.folder, device="cpu")
    dot.similarity_fn_name = "dot"
    rows = vectors(300) * np.float32(scale)
    with Index.create(tmp_path / "index", dot, row_dtype=row_dtype) as index:
        index.add(names(300), texts(300), vectors=rows)
        for query, hits in zip(asked, index.search(["x"] * len(asked), 5, vectors=asked, mode="vector"), strict=True):
            scores = rows.astype(np.float64) @ query.astype(np.float64)
            assert [int(hit.id[1:]) for hit in hits] == np.argsort(-scores, kind="stable")[:5].tolist()


def test_hits_are_plain_values(index: Index) -> None:
    index.add(["a"], ["the wing"])
    hit = index.search("the wing")[0]
    assert isinstance(hit, Hit)
    assert (hit.path, hit.line_start, hit.heading, hit.metadata) == ("", 0, (), {})
    assert type(hit.score) is float


def test_vectors_of_queries_that_are_known(index: Index, model: EmbeddingModel) -> None:
    fill(index, 200)
    queries = ["the wing", "lentil soup"]
    known = model.encode_query(queries)
    for mode in ("vector", "hybrid", "text"):
        wanted = index.search(queries, mode=mode)
        assert index.search(queries, mode=mode, vectors=known) == wanted
        assert index.search(queries[1], mode=mode, vectors=known[1].tolist()) == wanted[1]
    with pytest.raises(ValueError, match=r"shape \(2, 32\), where \[1, 32\]"):
        index.search(["one"], vectors=known)
    with pytest.raises(ValueError, match="not finite"):
        index.search("one", vectors=known[0] * np.nan)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), "much"])
def test_a_min_score_that_is_none(index: Index, score: Any) -> None:
    with pytest.raises(ValueError, match=r"min_score .* is not a finite number"):
        index.search("wing", min_score=score)
