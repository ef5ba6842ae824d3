"""Sparse vectors and vectors of tokens in the forms that vector databases take; none of their packages is needed."""

from typing import Any

from mlx_embed.multi_vectors import MultiVectors
from mlx_embed.sparse_vectors import SparseVector, SparseVectors


def to_qdrant(vectors: SparseVector | SparseVectors | MultiVectors) -> Any:
    """As Qdrant has them: {"indices": [...], "values": [...]}, or of vectors of tokens a list of lists.

    Of several texts a list of these. They go wherever the client takes a `models.SparseVector` or a multivector.
    """
    if isinstance(vectors, MultiVectors):
        return [text.tolist() for text in vectors]
    if isinstance(vectors, SparseVectors):
        return [to_qdrant(vector) for vector in vectors]
    return {"indices": vectors.indices.tolist(), "values": vectors.values.tolist()}


def to_milvus(vectors: SparseVector | SparseVectors) -> Any:
    """As Milvus has them, {token: weight}; of several texts a list of these."""
    if isinstance(vectors, SparseVectors):
        return [to_milvus(vector) for vector in vectors]
    return dict(zip(vectors.indices.tolist(), vectors.values.tolist(), strict=True))
