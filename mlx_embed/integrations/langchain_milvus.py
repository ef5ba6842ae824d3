"""LangChain's sparse embeddings for Milvus, by a `SparseEncoder`."""

from pathlib import Path

from mlx_embed.arguments import require_list, require_string
from mlx_embed.integrations.vector_formats import to_milvus
from mlx_embed.sparse_encoder import SparseEncoder

try:
    from langchain_milvus.utils.sparse import BaseSparseEmbedding
except ImportError as error:
    raise ImportError("This needs langchain-milvus: pip install langchain-milvus") from error


class MLXSparseEmbeddings(BaseSparseEmbedding):
    """What `Milvus` takes as `embedding_function`; the async methods run these in a thread."""

    def __init__(self, model: SparseEncoder | str | Path) -> None:
        """Take a model, or the name of one to load."""
        self.model = model if isinstance(model, SparseEncoder) else SparseEncoder.from_pretrained(model)

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """One vector a document."""
        require_list("texts", texts)
        vectors: list[dict[int, float]] = to_milvus(self.model.encode_document(texts))
        return vectors

    def embed_query(self, query: str) -> dict[int, float]:
        """The vector of a query."""
        require_string("query", query)
        vector: dict[int, float] = to_milvus(self.model.encode_query(query))
        return vector
