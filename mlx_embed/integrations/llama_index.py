"""LlamaIndex's `BaseEmbedding`, by an `EmbeddingModel`."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_embed.arguments import require_list
from mlx_embed.checkpoint import DEFAULT_MODEL
from mlx_embed.checkpoint.hub import lasting_name
from mlx_embed.embedding_model import EmbeddingModel

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
except ImportError as error:
    raise ImportError('This needs llama-index-core: pip install ".[llama-index]" in a clone of mlx-embed') from error


class MLXEmbedding(BaseEmbedding):
    """Queries and texts, each with the model's own prompt; the async methods run in a thread.

    It is serialised as its `model_name` and `encode_options`, and then loads with the machine's own dtype and device.
    """

    # LlamaIndex's default of 10 texts would leave nothing to sort by length; this is the most that it allows.
    embed_batch_size: int = Field(default=2048, gt=0, le=2048)
    encode_options: dict[str, Any] = Field(default_factory=dict)
    _model: EmbeddingModel = PrivateAttr()

    def __init__(
        self,
        model_name: EmbeddingModel | str | Path = DEFAULT_MODEL,
        *,
        encode_options: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        """Take a model, or the name of one to load; `encode_options` go to `encode`, `fields` to `BaseEmbedding`."""
        model = model_name if isinstance(model_name, EmbeddingModel) else EmbeddingModel.from_pretrained(model_name)
        name = lasting_name(model.name, model.checkpoint.folder.absolute())
        super().__init__(model_name=name, encode_options=dict(encode_options or {}), **fields)
        self._model = model

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex serialises."""
        return "MLXEmbedding"

    def get_query_embedding(self, query: str) -> list[float]:
        """Embed a query, past `embeddings_cache`, whose key is the text alone: a document's vector may be there."""
        vector: list[float] = super(MLXEmbedding, self._uncached()).get_query_embedding(query)
        return vector

    async def aget_query_embedding(self, query: str) -> list[float]:
        """As `get_query_embedding`, in a thread."""
        vector: list[float] = await super(MLXEmbedding, self._uncached()).aget_query_embedding(query)
        return vector

    def _uncached(self) -> "MLXEmbedding":
        return self if self.embeddings_cache is None else self.model_copy(update={"embeddings_cache": None})

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._model.encode_query(query, **self.encode_options).tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        require_list("texts", texts)
        vectors: list[list[float]] = self._model.encode_document(texts, **self.encode_options).tolist()
        return vectors

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
