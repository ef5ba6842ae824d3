"""LangChain, LlamaIndex and Chroma, each with the real library: the vectors of encode_query and encode_document."""

import asyncio
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel, ModelNotFoundError

TEXTS = ["the wing", "", "heat of the boundary layer", "naïve 日本"]
QUERY = "the flow"
DIM = {"truncate_dim": 8}
MODULES = {"langchain": "langchain_core", "llama_index": "llama_index.core", "chroma": "chromadb"}
EXTRAS = {name: name.replace("_", "-") for name in (*MODULES, "sentence_transformers", "keybert", "bertopic", "mteb")}


def adapter(name: str) -> Any:
    pytest.importorskip(MODULES[name], reason=f"{MODULES[name]} is not installed")
    return importlib.import_module(f"mlx_embed.integrations.{name}")


def expected(folder: Path, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """The query's vector and the documents'."""
    model = EmbeddingModel.from_pretrained(folder)
    query, documents = model.encode_query(QUERY, **options), model.encode_document(TEXTS, **options)
    assert np.abs(model.encode(TEXTS, **options) - documents).max() > 1e-3, "the prompts matter"
    return query, documents


def close(found: Any, vectors: np.ndarray) -> bool:
    return np.asarray(found).shape == vectors.shape and np.abs(np.asarray(found) - vectors).max() <= 1e-5


@pytest.mark.parametrize("options", [{}, DIM])
def test_langchain(options: dict[str, Any], prompted: Path) -> None:
    langchain = adapter("langchain")
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import InMemoryVectorStore

    query, documents = expected(prompted, **options)
    embeddings = langchain.MLXEmbeddings(prompted, encode_options=options)
    assert isinstance(embeddings, Embeddings)
    assert close(embeddings.embed_documents(TEXTS), documents)
    assert close(embeddings.embed_query(QUERY), query)
    assert close(asyncio.run(embeddings.aembed_documents(TEXTS)), documents)
    assert close(asyncio.run(embeddings.aembed_query(QUERY)), query)
    assert embeddings.embed_documents([]) == []
    assert {type(x) for x in embeddings.embed_query(QUERY)} == {float}
    store = InMemoryVectorStore(embeddings)
    store.add_documents([Document(text) for text in TEXTS])
    nearest = TEXTS[int(np.argmax(EmbeddingModel.from_pretrained(prompted).similarity(query, documents)))]
    assert store.similarity_search(QUERY, k=1)[0].page_content == nearest


def test_langchain_queries_apart(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An instruction for queries alone, as a model wants it whose checkpoint has no prompts."""
    langchain = adapter("langchain")
    model = EmbeddingModel.from_pretrained(checkpoint)
    embeddings = langchain.MLXEmbeddings(
        model, encode_options={"prompt": "code: "}, query_encode_options={"prompt": "index: "}, batch_size=2
    )
    assert close(embeddings.embed_query(QUERY), model.encode(f"index: {QUERY}"))
    assert close(embeddings.embed_documents(TEXTS), model.encode([f"code: {text}" for text in TEXTS]))
    assert capsys.readouterr().err == ""
    shown = langchain.MLXEmbeddings(model, query_encode_options={"prompt": "index: "}, show_progress=True)
    assert close(shown.embed_documents(TEXTS), model.encode(TEXTS))
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err
    shown.embed_query(QUERY)
    assert capsys.readouterr().err == "", "a bar for one query is none"
    with pytest.raises(ValueError, match="batch_size 0"):
        langchain.MLXEmbeddings(model, batch_size=0).embed_documents(TEXTS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("options", [{}, DIM])
def test_llama_index(options: dict[str, Any], prompted: Path) -> None:
    llama_index = adapter("llama_index")
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode

    query, documents = expected(prompted, **options)
    embedding = llama_index.MLXEmbedding(prompted, encode_options=options)
    assert close(embedding.get_text_embedding_batch(TEXTS), documents)
    assert close(embedding.get_text_embedding(TEXTS[2]), documents[2])
    assert close(embedding.get_query_embedding(QUERY), query)
    assert close(asyncio.run(embedding.aget_text_embedding_batch(TEXTS)), documents)
    assert close(asyncio.run(embedding.aget_text_embedding(TEXTS[2])), documents[2])
    assert close(asyncio.run(embedding.aget_query_embedding(QUERY)), query)
    nodes = embedding([TextNode(text=text) for text in TEXTS])
    assert close([node.embedding for node in nodes], documents)
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS if text], embed_model=embedding)
    scores = EmbeddingModel.from_pretrained(prompted).similarity(query, documents)[0]
    (found,) = index.as_retriever(similarity_top_k=1).retrieve(QUERY)
    assert found.text == TEXTS[max((0, 2, 3), key=lambda i: scores[i])]
    assert found.score == pytest.approx(max(scores[[0, 2, 3]]), abs=1e-5)

    again = llama_index.MLXEmbedding.from_dict(json.loads(json.dumps(embedding.to_dict())))
    assert (again.model_name, again.encode_options) == (str(prompted), options)
    assert close(again.get_query_embedding(QUERY), query)
    assert llama_index.MLXEmbedding(prompted, embed_batch_size=3).embed_batch_size == 3


def test_a_cache_of_llama_index_keeps_documents_alone(prompted: Path) -> None:
    """LlamaIndex's cache knows a text by itself, whichever side it is on."""
    llama_index = adapter("llama_index")
    from llama_index.core.storage.kvstore import SimpleKVStore

    model = EmbeddingModel.from_pretrained(prompted)
    query, document = model.encode_query(QUERY), model.encode_document(QUERY)
    assert not close(query, document)
    for query_first in (False, True):
        cache = SimpleKVStore()
        embedding = llama_index.MLXEmbedding(model, embeddings_cache=cache)
        if query_first:
            assert close(asyncio.run(embedding.aget_query_embedding(QUERY)), query)
            assert cache.get_all("embeddings") == {}
        assert close(embedding.get_text_embedding(QUERY), document)
        assert close(embedding.get_query_embedding(QUERY), query)
        assert close(asyncio.run(embedding.aget_query_embedding(QUERY)), query)
        (kept,) = cache.get_all("embeddings")[QUERY].values()
        assert close(kept, document)
        assert close(embedding.get_text_embedding_batch([QUERY]), document[None])


def test_llama_index_encodes_a_batch_at_once(prompted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = adapter("llama_index").MLXEmbedding(prompted)
    sizes = []
    encode = EmbeddingModel.encode_document
    monkeypatch.setattr(
        EmbeddingModel, "encode_document", lambda self, texts, **o: sizes.append(len(texts)) or encode(self, texts, **o)
    )
    embedding.get_text_embedding_batch(["the wing"] * 50)
    asyncio.run(embedding.aget_text_embedding_batch(["the wing"] * 50))
    assert sizes == [50, 50]


@pytest.mark.parametrize("options", [{}, DIM])
def test_chroma(options: dict[str, Any], prompted: Path, tmp_path: Path) -> None:
    chroma = adapter("chroma")
    import chromadb

    query, documents = expected(prompted, **options)
    function = chroma.MLXEmbeddingFunction(prompted, encode_options=options)
    assert close(function(TEXTS), documents)
    assert close(function.embed_query([QUERY]), query[None])
    assert not function.is_legacy()
    names = [str(i) for i in range(len(TEXTS))]

    client = chromadb.PersistentClient(str(tmp_path / "chroma"), chromadb.Settings(anonymized_telemetry=False))
    collection = client.create_collection("texts", embedding_function=function)
    assert collection.configuration_json["hnsw"]["space"] == "cosine"
    collection.add(names, documents=TEXTS)
    stored = collection.get(names, include=["embeddings"])
    assert close([stored["embeddings"][stored["ids"].index(name)] for name in names], documents)
    # Opened again without naming the function: Chroma makes it from what the collection keeps.
    for opened in (collection, client.get_collection("texts")):
        found = opened.query(query_texts=[QUERY], n_results=len(TEXTS))
        distances = dict(zip(found["ids"][0], found["distances"][0], strict=True))
        scores = EmbeddingModel.from_pretrained(prompted).similarity(query, documents)[0]
        assert close([1 - distances[name] for name in names], scores)


def test_chroma_finds_a_folder_again_from_another(
    prompted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chroma = adapter("chroma")
    monkeypatch.chdir(prompted.parent)
    made = chroma.MLXEmbeddingFunction(f"./{prompted.name}"), EmbeddingModel.from_pretrained(prompted.name)
    monkeypatch.chdir(tmp_path)
    for function in (made[0], chroma.MLXEmbeddingFunction(made[1])):
        assert function.get_config()["model"] == str(prompted)
        again = chroma.MLXEmbeddingFunction.build_from_config(function.get_config())
        assert close(again(TEXTS), made[1].encode_document(TEXTS))


def test_chroma_space_and_config(prompted: Path) -> None:
    chroma = adapter("chroma")
    path = prompted / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"similarity_fn_name": "dot"}))
    model = EmbeddingModel.from_pretrained(prompted)
    function = chroma.MLXEmbeddingFunction(model, encode_options=DIM)
    assert function.model is model
    assert function.default_space() == "ip"
    config = json.loads(json.dumps(function.get_config()))
    assert config == {"model": str(prompted), "encode_options": DIM}
    again = chroma.MLXEmbeddingFunction.build_from_config(config)
    assert again.get_config() == config
    assert close(again(TEXTS), model.encode_document(TEXTS, **DIM))


@pytest.mark.parametrize(("name", "class_name"), [("langchain", "MLXEmbeddings"), ("llama_index", "MLXEmbedding")])
def test_a_loaded_model_and_a_wrong_name(name: str, class_name: str, prompted: Path) -> None:
    adapter_class = getattr(adapter(name), class_name)
    model = EmbeddingModel.from_pretrained(prompted)
    found = adapter_class(model)
    assert (found.model if name == "langchain" else found._model) is model
    with pytest.raises(ModelNotFoundError):
        adapter_class(str(prompted / "absent"))


@pytest.mark.parametrize("name", EXTRAS)
def test_without_the_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "mteb":
        pytest.importorskip("sentence_transformers", reason="mteb's adapter needs it too")
    library = MODULES.get(name, name).split(".")[0]
    monkeypatch.setitem(sys.modules, library, None)
    for module in [m for m in sys.modules if m.startswith((f"{library}.", f"mlx_embed.integrations.{name}"))]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=rf'pip install "\.\[{EXTRAS[name]}\]" in a clone'):
        importlib.import_module(f"mlx_embed.integrations.{name}")
