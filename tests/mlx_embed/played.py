"""As much of LangChain, LlamaIndex, Chroma and others as the adapters use, for machines that do not have them."""

import copy
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from mlx_embed import integrations


@dataclass(frozen=True)
class _Field:
    make: Callable[[], Any]


def _field(default: Any = None, default_factory: Callable[[], Any] | None = None, **_: Any) -> _Field:
    return _Field(default_factory or (lambda: default))


class BaseEmbedding:
    """LlamaIndex's: public methods that call what an adapter defines."""

    embeddings_cache: dict[str, list[float]] | None = None

    def __init__(self, **fields: Any) -> None:
        for kind in reversed(type(self).__mro__):
            vars(self).update({name: x.make() for name, x in vars(kind).items() if isinstance(x, _Field)})
        vars(self).update(fields)

    def model_copy(self, update: dict[str, Any]) -> "BaseEmbedding":
        copied = copy.copy(self)
        vars(copied).update(update)
        return copied

    def _kept(self, text: str, embed: Callable[[str], list[float]]) -> list[float]:
        """A cache knows a text by itself, whichever side it is on."""
        if self.embeddings_cache is None:
            return embed(text)
        if text not in self.embeddings_cache:
            self.embeddings_cache[text] = embed(text)
        return self.embeddings_cache[text]

    def get_query_embedding(self, query: str) -> list[float]:
        return self._kept(query, self._get_query_embedding)  # type: ignore[attr-defined]

    def get_text_embedding(self, text: str) -> list[float]:
        return self._kept(text, self._get_text_embedding)  # type: ignore[attr-defined]

    def get_text_embedding_batch(self, texts: list[str]) -> list[list[float]]:
        return self._get_text_embeddings(texts)  # type: ignore[attr-defined]

    async def aget_query_embedding(self, query: str) -> list[float]:
        kept = (self.embeddings_cache or {}).get(query)
        return await self._aget_query_embedding(query) if kept is None else kept  # type: ignore[attr-defined]

    async def aget_text_embedding(self, text: str) -> list[float]:
        return await self._aget_text_embedding(text)  # type: ignore[attr-defined]

    async def aget_text_embedding_batch(self, texts: list[str]) -> list[list[float]]:
        return await self._aget_text_embeddings(texts)  # type: ignore[attr-defined]


def _registered(function: type) -> type:
    REGISTERED.append(function)
    return function


REGISTERED: list[type] = []
# What each adapter's library has, by module.
LIBRARIES: dict[str, dict[str, dict[str, Any]]] = {
    "langchain": {"langchain_core.embeddings": {"Embeddings": type("Embeddings", (), {})}},
    "llama_index": {
        "llama_index.core.base.embeddings.base": {"BaseEmbedding": BaseEmbedding},
        "llama_index.core.bridge.pydantic": {"Field": _field, "PrivateAttr": lambda: None},
    },
    "keybert": {"keybert.backend": {"BaseEmbedder": type("BaseEmbedder", (), {})}},
    "bertopic": {"bertopic.backend": {"BaseEmbedder": type("BaseEmbedder", (), {})}},
    "langchain_qdrant": {
        "langchain_qdrant.sparse_embeddings": {"SparseEmbeddings": type("Embeddings", (), {}), "SparseVector": dict}
    },
    "langchain_milvus": {"langchain_milvus.utils.sparse": {"BaseSparseEmbedding": type("Embedding", (), {})}},
    "chroma": {
        "chromadb.api.types": {"EmbeddingFunction": type("EmbeddingFunction", (), {})},
        "chromadb.utils.embedding_functions": {"register_embedding_function": _registered},
    },
}


def adapter(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The adapter, imported with a played library; all is forgotten when `monkeypatch` is undone."""
    for place, members in LIBRARIES[name].items():
        parts = place.split(".")
        for depth in range(1, len(parts) + 1):
            within = ".".join(parts[:depth])
            module = ModuleType(within)
            module.__path__ = []
            if depth == len(parts):
                vars(module).update(members)
            monkeypatch.setitem(sys.modules, within, module)
    own = f"mlx_embed.integrations.{name}"
    monkeypatch.setitem(sys.modules, own, ModuleType(own))  # so that what is imported now is put back or taken out
    del sys.modules[own]
    monkeypatch.setattr(integrations, name, None, raising=False)  # where `from mlx_embed.integrations import` looks
    return importlib.import_module(own)
