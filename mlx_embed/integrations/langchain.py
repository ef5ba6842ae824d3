"""LangChain's `Embeddings`, by an `EmbeddingModel`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_embed.arguments import require_list, require_string
from mlx_embed.checkpoint import DEFAULT_MODEL
from mlx_embed.embedding_model import EmbeddingModel

try:
    from langchain_core.embeddings import Embeddings
except ImportError as error:
    raise ImportError('This needs langchain-core: pip install ".[langchain]" in a clone of mlx-embed') from error


class MLXEmbeddings(Embeddings):
    """Queries and documents, each with the model's own prompt; the async methods run these in a thread.

    A model whose checkpoint has no prompts takes them here, for either apart:
    `MLXEmbeddings("BAAI/bge-small-en-v1.5", query_encode_options={"prompt": "Represent this sentence ...: "})`.
    """

    def __init__(
        self,
        model: EmbeddingModel | str | Path = DEFAULT_MODEL,
        *,
        encode_options: Mapping[str, Any] | None = None,
        query_encode_options: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
    ) -> None:
        """Take a model, or the name of one to load.

        Args:
            model: either.
            encode_options: what goes to `encode`, `truncate_dim` for example.
            query_encode_options: what goes to it for queries instead; None is `encode_options` there too.
            batch_size: the most texts of a batch; there is no need to set it.
            show_progress: show a bar of the documents done. None shows it where mlx_embed logs at INFO.

        Raises:
            MLXEmbedError: a model that cannot be loaded.
        """
        self.model = model if isinstance(model, EmbeddingModel) else EmbeddingModel.from_pretrained(model)
        every = {} if batch_size is None else {"batch_size": batch_size}
        self.encode_options = {**every, "show_progress_bar": show_progress, **(encode_options or {})}
        queries = encode_options if query_encode_options is None else query_encode_options
        self.query_encode_options = {**every, "show_progress_bar": False, **(queries or {})}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector a document."""
        require_list("texts", texts)
        vectors: list[list[float]] = self.model.encode_document(texts, **self.encode_options).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        require_string("text", text)
        vector: list[float] = self.model.encode_query(text, **self.query_encode_options).tolist()
        return vector
