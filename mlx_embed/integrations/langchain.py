"""LangChain's `Embeddings`, by an `EmbeddingModel`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_embed.checkpoint import DEFAULT_MODEL
from mlx_embed.embedding_model import EmbeddingModel

try:
    from langchain_core.embeddings import Embeddings
except ImportError as error:
    raise ImportError('This needs langchain-core: pip install "mlx-embed[langchain]"') from error


class MLXEmbeddings(Embeddings):
    """Queries and documents, each with the model's own prompt; the async methods run these in a thread."""

    def __init__(
        self, model: EmbeddingModel | str | Path = DEFAULT_MODEL, *, encode_options: Mapping[str, Any] | None = None
    ) -> None:
        """Take a model, or the name of one to load; `encode_options` go to `encode`, `truncate_dim` for example."""
        self.model = model if isinstance(model, EmbeddingModel) else EmbeddingModel.from_pretrained(model)
        self.encode_options = dict(encode_options or {})

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector a document."""
        vectors: list[list[float]] = self.model.encode_document(texts, **self.encode_options).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        vector: list[float] = self.model.encode_query(text, **self.encode_options).tolist()
        return vector
