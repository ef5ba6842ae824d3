"""LangChain, LlamaIndex and Chroma, each played: which text gets which prompt, and what is kept of the options."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel, SparseEncoder, integrations
from tests import sparse
from tests.mlx_embed.played import REGISTERED, adapter

TEXTS = ["the wing", "", "heat of the boundary layer"]
QUERY = "the flow"
OPTIONS: list[dict[str, Any]] = [{}, {"truncate_dim": 8}]


@pytest.fixture
def prompted(checkpoint: Path) -> Path:
    """A checkpoint whose queries and documents get prompts."""
    path = checkpoint / "config_sentence_transformers.json"
    prompts = {"query": "index: ", "document": "note of the "}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prompts": prompts}))
    return checkpoint


def expected(folder: Path, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The query's vector, and those of the documents: of the texts with the prompts put before them by hand."""
    model = EmbeddingModel.from_pretrained(folder)
    query, *documents = model.encode([f"index: {QUERY}", *(f"note of the {text}" for text in TEXTS)], **options)
    return query, np.array(documents)


def close(found: Any, vectors: np.ndarray) -> bool:
    return np.asarray(found).shape == vectors.shape and np.abs(np.asarray(found) - vectors).max() <= 1e-5


@pytest.mark.parametrize("options", OPTIONS)
def test_langchain(options: dict[str, Any], prompted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = adapter("langchain", monkeypatch).MLXEmbeddings(prompted, encode_options=options)
    query, documents = expected(prompted, options)
    assert close(embeddings.embed_query(QUERY), query)
    assert close(embeddings.embed_documents(TEXTS), documents)
    assert {type(x) for x in embeddings.embed_documents(TEXTS)[0]} == {float}


@pytest.mark.parametrize("options", OPTIONS)
def test_llama_index(options: dict[str, Any], prompted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = adapter("llama_index", monkeypatch).MLXEmbedding(prompted, encode_options=options)
    query, documents = expected(prompted, options)
    assert close(embedding.get_query_embedding(QUERY), query)
    assert close(embedding.get_text_embedding(TEXTS[2]), documents[2])
    assert close(embedding.get_text_embedding_batch(TEXTS), documents)
    assert close(asyncio.run(embedding.aget_query_embedding(QUERY)), query)
    assert close(asyncio.run(embedding.aget_text_embedding(TEXTS[2])), documents[2])
    assert close(asyncio.run(embedding.aget_text_embedding_batch(TEXTS)), documents)
    assert (embedding.model_name, embedding.encode_options) == (str(prompted), options)
    assert embedding.embed_batch_size > 100, "texts are sorted by length within a batch"


def test_a_cache_of_llama_index_keeps_documents_alone(prompted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = adapter("llama_index", monkeypatch).MLXEmbedding
    embedding = kind(prompted, embeddings_cache={})
    query, document = kind(prompted).get_query_embedding(TEXTS[2]), kind(prompted).get_text_embedding(TEXTS[2])
    assert not close(query, np.array(document))
    assert embedding.get_query_embedding(TEXTS[2]) == query
    assert embedding.get_text_embedding(TEXTS[2]) == document
    assert embedding.get_query_embedding(TEXTS[2]) == query
    assert asyncio.run(embedding.aget_query_embedding(TEXTS[2])) == query
    assert embedding.embeddings_cache == {TEXTS[2]: document}


@pytest.mark.parametrize("options", OPTIONS)
def test_chroma(options: dict[str, Any], prompted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = adapter("chroma", monkeypatch).MLXEmbeddingFunction
    assert kind in REGISTERED
    query, documents = expected(prompted, options)
    function = kind(prompted, encode_options=options)
    kept = json.loads(json.dumps(function.get_config()))
    for one in (function, kind.build_from_config(kept)):
        assert close(one.embed_query([QUERY]), query[None])
        assert close(one(TEXTS), documents)
        assert one.get_config() == kept


@pytest.mark.parametrize(
    ("similarity", "space"), [("cosine", "cosine"), ("dot", "ip"), ("euclidean", "l2"), ("manhattan", "l2")]
)
def test_chroma_has_the_models_distance(
    similarity: str, space: str, prompted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = prompted / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"similarity_fn_name": similarity}))
    assert adapter("chroma", monkeypatch).MLXEmbeddingFunction(prompted).default_space() == space


@pytest.mark.parametrize(
    ("name", "kind"),
    [("langchain", "MLXEmbeddings"), ("llama_index", "MLXEmbedding"), ("chroma", "MLXEmbeddingFunction")],
)
def test_a_loaded_model_is_taken_as_it_is(
    name: str, kind: str, prompted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = EmbeddingModel.from_pretrained(prompted)
    loads = []
    monkeypatch.setattr(EmbeddingModel, "from_pretrained", lambda *given, **_: loads.append(given))
    made = getattr(adapter(name, monkeypatch), kind)(model)
    found = {"langchain": "embed_documents", "llama_index": "get_text_embedding_batch", "chroma": "__call__"}[name]
    assert close(getattr(made, found)(TEXTS), model.encode_document(TEXTS))
    assert not loads
    assert name != "chroma" or made.get_config() == {"model": str(prompted), "encode_options": {}}


@pytest.mark.parametrize(
    ("name", "kind", "of_lists", "of_strings"),
    [
        ("langchain", "MLXEmbeddings", ["embed_documents"], ["embed_query"]),
        ("langchain_qdrant", "MLXSparseEmbeddings", ["embed_documents"], ["embed_query"]),
        ("langchain_milvus", "MLXSparseEmbeddings", ["embed_documents"], ["embed_query"]),
        ("llama_index", "MLXEmbedding", ["get_text_embedding_batch"], []),
        ("chroma", "MLXEmbeddingFunction", ["__call__", "embed_query"], []),
        ("keybert", "MLXEmbedder", ["embed"], []),
        ("bertopic", "MLXEmbedder", ["embed"], []),
    ],
)
def test_a_text_in_the_place_of_a_list_and_the_other_way_round(
    name: str,
    kind: str,
    of_lists: list[str],
    of_strings: list[str],
    prompted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which gave vectors of letters, or one where a list of them is expected."""
    model: Any = EmbeddingModel.from_pretrained(prompted)
    if "Sparse" in kind:
        model = SparseEncoder.from_pretrained(sparse.make(tmp_path / "sparse", "bert"))
    made = getattr(adapter(name, monkeypatch), kind)(model)
    for method in of_lists:
        with pytest.raises(TypeError, match="is a str, where a list of strings is needed"):
            getattr(made, method)("the wing")
    for method in of_strings:
        with pytest.raises(TypeError, match="is a list, where a string is needed"):
            getattr(made, method)(["the wing"])


def test_what_is_played_is_forgotten() -> None:
    """Or a test that comes later would have the played library in the place of its own."""
    with pytest.MonkeyPatch.context() as patch:
        played = adapter("keybert", patch)
        assert sys.modules[played.__name__] is played
    assert getattr(integrations, "keybert", None) is not played
    assert sys.modules.get(played.__name__) is not played
