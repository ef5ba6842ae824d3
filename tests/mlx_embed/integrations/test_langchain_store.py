"""An index as LangChain's vector store."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from langchain_core.vectorstores.utils import maximal_marginal_relevance

from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.index import Chunk, FileStat, Index
from mlx_embed.integrations.langchain import MLXEmbeddings
from mlx_embed.integrations.langchain_store import MLXVectorStore
from tests.conftest import DATA
from tests.mlx_embed.index.conftest import names, texts


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = MLXVectorStore.from_texts(
        ["the wing stalls", "lentil soup", "heat of a plate"],
        MLXEmbeddings(DATA / "tiny-bert"),
        [{"year": 1}, {"year": 2}, {"year": 3}],
        ids=["a", "b", "c"],
        path=tmp_path / "index",
        row_dtype="int8",
    )
    yield made
    made.index.close()


def test_documents_are_found_as_the_index_finds_them(store: MLXVectorStore) -> None:
    found = store.similarity_search_with_score("lentil soup", 2, mode="vector")
    hits = store.index.search("lentil soup", 2, mode="vector")
    assert [(one.id, score) for one, score in found] == [(hit.id, hit.score) for hit in hits]
    assert (found[0][0].page_content, found[0][0].metadata) == ("lentil soup", {"year": 2})
    assert [one.id for one in store.similarity_search("soup", filter={"year": {">": 2}})] == ["c"]
    assert [one.id for one in store.as_retriever(search_kwargs={"k": 1}).invoke("lentil soup")] == ["b"]


def test_relevance_is_a_cosine_from_0_to_1(store: MLXVectorStore) -> None:
    vectors = store.index.vectors(["b"])
    store.index.add(["d"], ["its contrary"], vectors=-vectors["b"][None])
    found = {one.id: score for one, score in store.similarity_search_with_relevance_scores("lentil soup", 9)}
    cosines = {hit.id: hit.score for hit in store.index.search("lentil soup", 9, mode="vector")}
    assert found == {name: min(max(score, 0), 1) for name, score in cosines.items()}
    assert (found["b"], found["d"]) == (pytest.approx(1, abs=1e-6), 0)
    near = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.999})
    assert [one.id for one in near.invoke("lentil soup")] == ["b"]
    assert [one.id for one in asyncio.run(near.ainvoke("lentil soup"))] == ["b"]
    by_words = store.similarity_search_with_relevance_scores("lentil soup", 1, mode="hybrid")
    assert by_words[0][1] == store.index.search("lentil soup", 1)[0].score


def test_relevance_by_an_index_of_inner_products_is_a_cosine_too(tmp_path: Path) -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert")
    model.similarity_fn_name = "dot"
    query = np.array(model.encode_query("lentil soup"), dtype=np.float32)
    contrary, across = -query, np.roll(query, 1)
    rows = np.stack([query * 7, query * 0.5, contrary, across * 9])
    with Index.create(tmp_path / "index", model) as index:
        index.add(["long", "short", "contrary", "across"], ["a", "b", "c", "d"], vectors=rows)
        store = MLXVectorStore(index)
        for options in ({}, {"vectors": query * 3}):
            found = store.similarity_search_with_relevance_scores("lentil soup", 4, **options)
            wanted = {"long": 1, "short": 1, "contrary": 0, "across": max(query @ across / (query @ query), 0)}
            assert {one.id: score for one, score in found} == pytest.approx(wanted, abs=1e-3)
        assert store.similarity_search_with_relevance_scores("", 4) == []


@pytest.fixture
def many(store: MLXVectorStore) -> MLXVectorStore:
    listed = [*texts(30), texts(1)[0], "  "]  # one twice, and one without a direction
    store.add_texts(listed, [{"odd": i % 2 == 1} for i in range(len(listed))], ids=names(len(listed)))
    return store


@pytest.mark.parametrize("relevance", [0, 0.3, 0.5, 1])
@pytest.mark.parametrize("options", [{}, {"mode": "vector"}, {"filter": {"odd": True}}], ids=str)
def test_the_most_relevant_and_unlike_are_langchains(many: MLXVectorStore, relevance: float, options: Any) -> None:
    query = "heat of a jet"
    found = many.max_marginal_relevance_search(query, 8, 16, relevance, **options)
    hits = many.index.search(query, 16, **options)
    vector = many.index.model.encode_query(query)
    vectors = many.index.model.encode_document([hit.text for hit in hits])
    expected = maximal_marginal_relevance(vector, list(vectors), relevance, 8)
    assert [one.id for one in found] == [hits[place].id for place in expected]
    assert len({one.page_content for one in found}) == 8 or relevance == 1
    retriever = many.as_retriever(
        search_type="mmr", search_kwargs={"k": 8, "fetch_k": 16, "lambda_mult": relevance, **options}
    )
    assert retriever.invoke(query) == found


def test_a_vector_finds_what_its_text_finds(many: MLXVectorStore) -> None:
    vector = many.embeddings.embed_query("heat of a jet")  # type: ignore[union-attr]
    assert many.similarity_search_by_vector(vector, 5) == many.similarity_search("heat of a jet", 5, mode="vector")
    assert many.max_marginal_relevance_search_by_vector(
        vector, 5, filter={"odd": True}
    ) == many.max_marginal_relevance_search("heat of a jet", 5, mode="vector", filter={"odd": True})


def test_few_and_none_are_enough_to_choose_from(many: MLXVectorStore) -> None:
    assert len(many.max_marginal_relevance_search("jet", 30, fetch_k=5, mode="vector")) == 30
    everything = many.max_marginal_relevance_search("jet", 99, lambda_mult=0, mode="vector")
    assert len(everything) == len(many.index)
    assert many.max_marginal_relevance_search("jet", filter={"year": 99}) == []
    for mode in ("hybrid", "vector", "text"):
        assert many.max_marginal_relevance_search("  ", mode=mode) == many.similarity_search("  ", mode=mode) == []


def test_the_most_relevant_and_unlike_by_wrong_numbers(store: MLXVectorStore) -> None:
    for relevance in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="lambda_mult"):
            store.max_marginal_relevance_search("jet", lambda_mult=relevance)
    with pytest.raises(ValueError, match="fetch_k 0 is not"):
        store.max_marginal_relevance_search("jet", fetch_k=0)
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        store.similarity_search_by_vector([1.0, 0.0])


def test_documents_come_and_go(store: MLXVectorStore) -> None:
    assert store.add_texts(["wing two"], [{"year": 9}], ids=["a"]) == ["a"]
    (made,) = store.add_texts(["a text without a name"])
    assert [(one.id, one.page_content) for one in store.get_by_ids(["a", "nobody", made])] == [
        ("a", "wing two"),
        (made, "a text without a name"),
    ]
    assert store.delete([made]) is True
    assert store.delete([made]) is False
    with pytest.raises(ValueError, match="delete needs ids"):
        store.delete()
    assert store.add_texts(np.array(["wing", "heat"]), ids=np.array(["x", "y"])) == ["x", "y"]  # type: ignore[arg-type]
    assert store.delete(["x", "y"])
    for given in ({"texts": "ab"}, {"texts": ["a", "b"], "ids": "ab"}, {"texts": [], "ids": ""}):
        with pytest.raises(TypeError, match="is a str, where a list"):
            store.add_texts(**given)
    assert len(store.index) == 3


def test_texts_that_cannot_be_added_leave_no_index(tmp_path: Path) -> None:
    embeddings, path = MLXEmbeddings(DATA / "tiny-bert"), tmp_path / "index"
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        MLXVectorStore.from_texts(["wing"], embeddings, [{"when": object()}], path=path)
    path.mkdir()
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        MLXVectorStore.from_texts(["wing"], embeddings, [{"when": object()}], path=path)
    made = MLXVectorStore.from_texts(["wing"], embeddings, [{"when": 3}], path=path)
    made.index.close()
    with pytest.raises(ValueError, match="'a' is there twice"):
        MLXVectorStore.from_texts(["heat", "heat"], embeddings, ids=["a", "a"], path=path, exist_ok=True)
    with Index.open(path) as index:
        assert [hit.text for hit in index.get().values()] == ["wing"]


def test_the_place_of_a_chunk_is_in_its_metadata(store: MLXVectorStore) -> None:
    chunk = Chunk("jet noise", "docs/a.md", 0, 9, 3, 4, metadata={"lines": "mine"})
    store.index.replace_files([("docs/a.md", FileStat(1, 2, "ab"), [chunk])])
    assert store.similarity_search("jet noise", 1)[0].metadata == {"source": "docs/a.md", "lines": "mine"}


def test_the_embeddings_are_the_indexs(store: MLXVectorStore) -> None:
    assert store.embeddings is not None
    vector = store.embeddings.embed_query("lentil soup")
    assert vector == pytest.approx(store.index.model.encode_query("lentil soup").tolist())


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="needs path"):
        MLXVectorStore.from_texts(["x"], MLXEmbeddings(DATA / "tiny-bert"))
    with pytest.raises(TypeError, match="an index embeds by itself"):
        MLXVectorStore.from_texts(["x"], object(), path=tmp_path / "x")  # type: ignore[arg-type]
    with Index.create(tmp_path / "index", str(DATA / "tiny-bert")) as index, pytest.raises(TypeError, match="ids"):
        index.get("a")
