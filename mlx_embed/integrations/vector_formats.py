"""Sparse vectors and vectors of tokens in the forms that vector databases take; none of their packages is needed."""

from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.multi_vectors import MultiVectors
from mlx_embed.sparse_vectors import SparseVector, SparseVectors, require_sparse


def to_qdrant(vectors: SparseVector | SparseVectors | MultiVectors | npt.NDArray[np.float32]) -> Any:
    """As Qdrant has them: {"indices": [...], "values": [...]}, or of vectors of tokens a list of lists.

    Of several texts a list of these. They go wherever the client takes a `models.SparseVector` or a multivector. An
    array is vectors of tokens: [L, D] of a text, or [N, L, D] of several.

    Raises:
        TypeError: nothing of these.
    """
    if isinstance(vectors, (MultiVectors, np.ndarray)):
        found = [text.tolist() for text in MultiVectors.of(vectors)]
        return found[0] if isinstance(vectors, np.ndarray) and vectors.ndim == 2 else found
    require_sparse(vectors)
    if isinstance(vectors, SparseVectors):
        return [to_qdrant(vector) for vector in vectors]
    return {"indices": vectors.indices.tolist(), "values": vectors.values.tolist()}


def to_milvus(vectors: SparseVector | SparseVectors) -> Any:
    """As Milvus has them, {token: weight}; of several texts a list of these. It does not take one without any weight.

    Raises:
        TypeError: no sparse vectors.
    """
    require_sparse(vectors)
    if isinstance(vectors, SparseVectors):
        return [to_milvus(vector) for vector in vectors]
    return dict(zip(vectors.indices.tolist(), vectors.values.tolist(), strict=True))
