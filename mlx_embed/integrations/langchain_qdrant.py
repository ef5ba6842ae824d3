"""LangChain's sparse embeddings for Qdrant, by a `SparseEncoder`."""

from pathlib import Path

from mlx_embed.arguments import require_list, require_string
from mlx_embed.integrations.vector_formats import to_qdrant
from mlx_embed.sparse_encoder import SparseEncoder

try:
    from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector
except ImportError as error:
    raise ImportError("This needs langchain-qdrant: pip install langchain-qdrant") from error


class MLXSparseEmbeddings(SparseEmbeddings):
    """What `QdrantVectorStore` takes as `sparse_embedding`; the async methods run these in a thread."""

    def __init__(self, model: SparseEncoder | str | Path) -> None:
        """Take a model, or the name of one to load."""
        self.model = model if isinstance(model, SparseEncoder) else SparseEncoder.from_pretrained(model)

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """One vector a document."""
        require_list("texts", texts)
        return [SparseVector(**row) for row in to_qdrant(self.model.encode_document(texts))]

    def embed_query(self, text: str) -> SparseVector:
        """The vector of a query."""
        require_string("text", text)
        return SparseVector(**to_qdrant(self.model.encode_query(text)))
