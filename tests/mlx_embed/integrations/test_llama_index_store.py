"""An index as LlamaIndex's vector store."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="llama-index-core, extra llama-index")

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.schema import ImageNode, IndexNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from mlx_embed import EmbeddingModel
from mlx_embed.index import Chunk, FileStat, Index
from mlx_embed.integrations.llama_index import MLXEmbedding
from mlx_embed.integrations.llama_index_store import MLXVectorStore
from tests.conftest import DATA

TEXTS = {"a": "the wing stalls", "b": "lentil soup", "c": "heat of a plate", "d": "the soup of the day"}
METADATA: dict[str, dict[str, Any]] = {
    "a": {"year": 1, "lang": "en", "tags": ["x", "y"], "ref_doc_id": "mine"},
    "b": {"year": 2, "lang": "de", "tags": ["y"], "note": ""},
    "c": {"year": 3, "lang": "en", "tags": [], "note": None},
    "d": {"year": 2.5, "note": "long"},
}


def node(name: str, document: str = "doc") -> TextNode:
    parent = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(id_=name, text=TEXTS[name], metadata=METADATA[name], relationships=parent, start_char_idx=3)


@pytest.fixture(scope="module")
def model() -> EmbeddingModel:
    return EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")


@pytest.fixture
def store(model: EmbeddingModel, tmp_path: Path) -> Iterator[MLXVectorStore]:
    with Index.create(tmp_path / "index", model) as index:
        made = MLXVectorStore(index)
        assert made.add([node(name, "doc" if name < "c" else "other") for name in TEXTS]) == list(TEXTS)
        yield made


def ask(store: Any, text: str = "lentil soup", k: int = 4, **options: Any) -> list[str]:
    return list(store.query(VectorStoreQuery(query_str=text, similarity_top_k=k, **options)).ids)


@pytest.mark.parametrize(
    ("mode", "own"),
    [("default", "vector"), ("sparse", "text"), ("text_search", "text"), ("hybrid", "hybrid")],
)
def test_a_mode_finds_as_the_index_does(store: MLXVectorStore, mode: str, own: Any) -> None:
    query = VectorStoreQuery(query_str="lentil soup", similarity_top_k=3, mode=VectorStoreQueryMode(mode))
    found, hits = store.query(query), store.client.search("lentil soup", 3, mode=own)
    assert found.nodes is not None
    assert [(one.node_id, one.get_content()) for one in found.nodes] == [(hit.id, hit.text) for hit in hits]
    assert (found.ids, found.similarities) == ([hit.id for hit in hits], [hit.score for hit in hits])
    assert found.ids is not None
    assert found.ids[0] == "b"


def test_nodes_come_back_as_they_were(store: MLXVectorStore, model: EmbeddingModel) -> None:
    given = [
        node("a"),
        TextNode(text="ü", metadata={}, excluded_embed_metadata_keys=["x"], text_template="{content}!"),
        IndexNode(text="about", index_id="there", metadata={"deep": {"n": [1, None]}}),
        ImageNode(text="a picture", image_url="u"),
    ]
    store.add(given)
    back = store.get_nodes([one.node_id for one in given])
    assert [type(one) for one in back] == [type(one) for one in given]
    assert [one.to_dict() for one in back] == [one.to_dict() for one in given]
    assert store.get_nodes(["nobody"]) == []


def each(key: str, operator: str, value: Any) -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=FilterOperator(operator))


@pytest.mark.parametrize("condition", list(FilterCondition))
@pytest.mark.parametrize(
    "filters",
    [
        [each("lang", "==", "en")],
        [each("lang", "!=", "en")],
        [each("year", ">", 1), each("year", "<=", 2)],
        [each("year", ">=", 2), each("lang", "==", "en")],
        [each("year", "<", 2.5), each("year", "in", [3, 2])],
        [each("lang", "in", ["en", "fr"])],
        [each("lang", "nin", ["en", "fr"])],
        [each("tags", "any", ["x", "z"])],
        [each("tags", "all", ["x", "y"])],
        [each("tags", "contains", "y"), each("year", ">", 1)],
        [each("note", "is_empty", None)],
    ],
)
def test_filters_are_those_of_llama_index(
    store: MLXVectorStore, filters: list[Any], condition: FilterCondition, model: EmbeddingModel
) -> None:
    theirs = SimpleVectorStore()
    vectors = model.encode_document(list(TEXTS.values()))
    theirs.add(
        [node(name).model_copy(update={"embedding": v.tolist()}) for name, v in zip(TEXTS, vectors, strict=True)]
    )
    given = MetadataFilters(filters=filters, condition=condition)
    query = VectorStoreQuery(query_embedding=vectors[0].tolist(), similarity_top_k=4, filters=given)
    assert store.query(query).ids == theirs.query(query).ids
    assert {one.node_id for one in store.get_nodes(filters=given)} == set(theirs.query(query).ids or [])


def test_filters_in_filters_documents_and_nodes(store: MLXVectorStore) -> None:
    inner = MetadataFilters(filters=[each("year", "<", 2), each("year", ">", 2.7)], condition=FilterCondition.OR)
    assert set(ask(store, filters=MetadataFilters(filters=[inner, each("lang", "==", "en")]))) == {"a", "c"}
    assert set(ask(store, doc_ids=["other"])) == {"c", "d"}
    assert set(ask(store, node_ids=["a", "d", "nobody"], filters=MetadataFilters(filters=[inner]))) == {"a"}
    assert len(ask(store, node_ids=[], doc_ids=[])) == 4


def test_metadata_that_is_called_like_an_operator(store: MLXVectorStore) -> None:
    store.client.upsert(["e"], ["jet noise"], [{"$in": "e"}])
    assert ask(store, filters=MetadataFilters(filters=[each("$in", "==", "e")])) == ["e"]


def test_nodes_go(store: MLXVectorStore) -> None:
    store.delete("doc")
    assert {one.node_id for one in store.get_nodes()} == {"c", "d"}
    store.delete_nodes(filters=MetadataFilters(filters=[each("lang", "==", "en")]))
    store.delete_nodes(["nobody"])
    assert ask(store) == ["d"]
    with pytest.raises(ValueError, match=r"clear\(\) removes all"):
        store.delete_nodes()
    store.clear()
    assert len(store.client) == 0


def test_an_index_of_llama_indexs_own(store: MLXVectorStore, model: EmbeddingModel) -> None:
    embed_model = MLXEmbedding(model)
    made: Any = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    made.insert(Document(text="a violin plays", doc_id="music", metadata={"lang": "fr"}))
    for mode in ("default", "sparse", "hybrid"):
        found = made.as_retriever(similarity_top_k=2, vector_store_query_mode=mode).retrieve("a violin plays")
        assert found[0].node.ref_doc_id == "music"
        assert (found[0].node.get_content(), found[0].node.metadata) == ("a violin plays", {"lang": "fr"})
    vector = store.client.search("x", 1, vectors=embed_model.get_query_embedding("lentil soup"), mode="vector")
    assert vector[0].id == "b"
    retriever = made.as_retriever(similarity_top_k=1)
    assert [one.node_id for one in asyncio.run(retriever.aretrieve("lentil soup"))] == ["b"]
    made.delete_ref_doc("music")
    assert len(store.client) == 4


def test_passages_of_files_are_nodes_too(store: MLXVectorStore) -> None:
    chunk = Chunk("jet noise", "docs/a.md", 0, 9, 3, 4, metadata={"lang": "en"})
    store.client.replace_files([("docs/a.md", FileStat(1, 2, "ab"), [chunk])])
    [found] = store.get_nodes(["docs/a.md#0"])
    assert found.metadata == {"file_path": "docs/a.md", "lines": [3, 4], "lang": "en"}
    assert ask(store, filters=MetadataFilters(filters=[each("path", "==", "*.md")])) == ["docs/a.md#0"]


def test_a_path_of_a_nodes_metadata_is_asked_for_too(store: MLXVectorStore) -> None:
    store.add([TextNode(id_=name, text="x", metadata={"path": path}) for name, path in (("e", "a/b.md"), ("f", 3))])

    def found(operator: str, value: Any) -> set[str]:
        return set(ask(store, k=9, filters=MetadataFilters(filters=[each("path", operator, value)])))

    assert found("==", "a/b.md") == found("in", ["a/b.md", "c"]) == found(">", "a") == {"e"}
    assert found("==", 3) == found("<=", 3) == {"f"}
    assert found("!=", "a/b.md") == {*TEXTS, "f"}
    assert found("is_empty", None) == {*TEXTS}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": VectorStoreQueryMode.MMR}, "no mode 'mmr'; it has default, sparse, text_search, hybrid"),
        ({"alpha": 0.9, "mode": VectorStoreQueryMode.HYBRID}, "fuses both ranks alike"),
        ({"text": None}, "needs query_str"),
        ({"filters": MetadataFilters(filters=[each("lang", "text_match", "e")])}, "no filter 'text_match'"),
    ],
)
def test_what_cannot_be_asked(store: MLXVectorStore, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(store, **options)


def test_what_cannot_be_added(store: MLXVectorStore) -> None:
    with pytest.raises(ValueError, match="1 of 2 nodes have a vector"):
        store.add([TextNode(text="a"), TextNode(text="b", embedding=[0.0] * 32)])
    with pytest.raises(ValueError, match="shape"):
        store.add([TextNode(text="b", embedding=[0.0] * 31)])
    assert len(store.client) == 4
