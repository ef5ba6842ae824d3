"""LangChain's `VectorStore`, by an `Index`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any
from uuid import uuid4

import numpy as np

from mlx_embed.arguments import finite_number, path_of, positive_number, require_list, type_name
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.index import Hit, Index
from mlx_embed.index.database import DATABASE
from mlx_embed.index.diverse import diverse
from mlx_embed.integrations.langchain import MLXEmbeddings
from mlx_embed.similarity import cosine

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.runnables import run_in_executor
    from langchain_core.vectorstores import VectorStore
except ImportError as error:
    raise ImportError('This needs langchain-core: pip install ".[langchain]" in a clone of mlx-embed') from error


class MLXVectorStore(VectorStore):
    """An index as LangChain's vector store, which embeds by the index's own model.

    A search takes what `Index.search` takes: `mode`, `filter`, `rerank`, `min_score`. Metadata comes back as it was
    given; of a file's chunk with its path and lines under "source" and "lines" beside, where these are not taken.

    Attributes:
        index: what holds the texts; close it at the end.
    """

    def __init__(self, index: Index) -> None:
        """Take an index that is open."""
        self.index = index

    @property
    def embeddings(self) -> Embeddings:
        """The index's model, with the prompts that the index has."""
        said = self.index.statement
        return MLXEmbeddings(
            self.index.model,
            encode_options={"prompt": said.document_prompt},
            query_encode_options={"prompt": said.query_prompt},
        )

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: EmbeddingModel | Embeddings | str,
        metadatas: list[dict[Any, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        path: str | Path | None = None,
        **options: Any,
    ) -> "MLXVectorStore":
        """A new index at `path` with these texts; `options` go to `Index.create`.

        Where the texts cannot be added, none is left behind.

        Raises:
            TypeError: embeddings of another library, or no path.
        """
        if path is None:
            raise TypeError("from_texts needs path, the folder of the index to make.")
        model = embedding.model if isinstance(embedding, MLXEmbeddings) else embedding
        if not isinstance(model, (EmbeddingModel, str)):
            raise TypeError(
                f"from_texts takes MLXEmbeddings, an EmbeddingModel or a model's name, got {type_name(model)}: "
                "an index embeds by itself."
            )
        there = (path_of("path", path) / DATABASE).exists()
        store = cls(Index.create(path, model, **options))
        try:
            store.add_texts(texts, metadatas, ids=ids)
        except BaseException:
            store.index.close()
            if not there:
                rmtree(store.index.path)
            raise
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[Any, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, or replace those with the same ids, in one commit; ids that are not given are made up."""
        for name, some in (("texts", texts), ("ids", [] if ids is None else ids)):
            require_list(name, some)
        listed = list(texts)
        given = list(ids) if ids is not None else [None] * len(listed)
        names = [str(uuid4()) if name is None else name for name in given]
        self.index.upsert(names, listed, metadatas)
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Remove texts by id; whether there were any.

        Raises:
            ValueError: no ids: an index is not emptied by leaving something out.
        """
        if ids is None:
            raise ValueError("delete needs ids; to remove an index, close it and remove its folder.")
        return self.index.delete(ids) > 0

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The texts that there are of these ids, in their order."""
        found = self.index.get(ids)
        return [_document(found[name]) for name in ids if name in found]

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """The k best, as `Index.search` finds them."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **options)]

    def similarity_search_with_score(self, query: str, k: int = 4, **options: Any) -> list[tuple[Document, float]]:
        """The k best and their scores, of which larger ones are better."""
        return [(_document(hit), hit.score) for hit in self.index.search(query, k, **options)]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **options: Any) -> list[Document]:
        """The k nearest to a vector of the model of the index; takes `filter`."""
        return [_document(hit) for hit in self.index.search("", k, mode="vector", vectors=embedding, **options)]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """k of the best `fetch_k` (at least k), each near the query and unlike those before it.

        Args:
            query: a question or some words.
            k: how many.
            fetch_k: among how many, which are found as `similarity_search` finds them.
            lambda_mult: what being near the query counts, from 0 to 1; the rest counts for being unlike the others.
            options: of `Index.search`.

        Raises:
            ValueError: a lambda_mult beyond 0 and 1.
        """
        if not query.strip():
            return []
        if options.get("vectors") is None:
            options["vectors"] = self.embeddings.embed_query(query)
        return self._diverse(query, k, fetch_k, lambda_mult, options)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, of the `fetch_k` whose vectors are nearest to `embedding`."""
        return self._diverse("", k, fetch_k, lambda_mult, {"mode": "vector", "vectors": embedding, **options})

    def _diverse(
        self, query: str, k: int, fetch_k: int, lambda_mult: float, options: Mapping[str, Any]
    ) -> list[Document]:
        k, fetch_k = positive_number("k", k, "texts"), positive_number("fetch_k", fetch_k, "texts")
        if not 0 <= finite_number("lambda_mult", lambda_mult) <= 1:
            raise ValueError(f"lambda_mult {lambda_mult} is not between 0, for diversity, and 1, for relevance.")
        hits = self.index.search(query, max(k, fetch_k), **options)
        vectors = self.index.vectors([hit.id for hit in hits])
        hits = [hit for hit in hits if hit.id in vectors]  # another process may have removed one meanwhile
        if not hits:
            return []
        among = np.stack([vectors[hit.id] for hit in hits])
        best = diverse(np.asarray(options["vectors"], dtype=np.float32), among, k, lambda_mult)
        return [_document(hits[place]) for place in best]

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """By cosine unless told another mode: a sum of ranks says nothing of how relevant a text is."""
        options = {"mode": "vector", **options}
        hits = self.index.search(query, k, **options)
        scores = [hit.score for hit in hits]
        by_vector = options["mode"] == "vector" and options.get("rerank") is None
        if hits and by_vector and self.index.statement.similarity != "cosine":
            given = options.get("vectors")
            asked = self.embeddings.embed_query(query) if given is None else given
            vectors = self.index.vectors([hit.id for hit in hits])
            hits = [hit for hit in hits if hit.id in vectors]  # another process may have removed one meanwhile
            scores = [cosine(np.array([asked], dtype=np.float32), vectors[hit.id][None]).item() for hit in hits]
        return [(_document(hit), min(max(score, 0.0), 1.0)) for hit, score in zip(hits, scores, strict=True)]

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        return await run_in_executor(None, self._similarity_search_with_relevance_scores, query, k, **options)


def _document(hit: Hit) -> Document:
    place: dict[str, Any] = {"source": hit.path, "lines": [hit.line_start, hit.line_end]} if hit.path else {}
    return Document(page_content=hit.text, metadata={**place, **hit.metadata}, id=hit.id)
