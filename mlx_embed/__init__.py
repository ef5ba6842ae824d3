"""Text embeddings for search and RAG on MLX: Metal, CUDA and CPU.

EmbeddingModel.from_pretrained(name)    a model; its encode, encode_query and encode_document make vectors of texts
CrossEncoder.from_pretrained(name)      a reranker: predict and rank
SparseEncoder.from_pretrained(name)     a sparse model (SPLADE): encode_query, encode_document, similarity, decode
MultiVectorEncoder.from_pretrained(name)  a vector a token (ColBERT): encode_query, encode_document, similarity, rank
BGEM3.from_pretrained(name)             BGE-M3: vectors, weights of tokens and tokens' vectors in one pass
search(queries, documents, k)           the nearest vectors
convert(source, destination)            a checkpoint in fewer bits

What is not listed in `__all__` is not for use from outside and may change.
"""

import custom_kernels  # noqa: F401  (before mlx.core: see there)
from mlx_embed.bge_m3 import BGEM3, M3Vectors
from mlx_embed.checkpoint import EmbeddingModelType
from mlx_embed.convert import convert
from mlx_embed.cross_encoder import CrossEncoder
from mlx_embed.embedding_model import EmbeddingModel, EncodeInfo
from mlx_embed.errors import CheckpointError, MLXEmbedError, ModelNotFoundError, UnsupportedModelError
from mlx_embed.multi_vector_encoder import MultiVectorEncoder
from mlx_embed.multi_vectors import MultiVectors
from mlx_embed.search import search
from mlx_embed.sparse_encoder import SparseEncoder
from mlx_embed.sparse_vectors import SparseVector, SparseVectors
from mlx_embed.tokenizer import TruncationWarning

__version__ = "0.1.0"

__all__ = [
    "BGEM3",
    "CheckpointError",
    "CrossEncoder",
    "EmbeddingModel",
    "EmbeddingModelType",
    "EncodeInfo",
    "M3Vectors",
    "MLXEmbedError",
    "ModelNotFoundError",
    "MultiVectorEncoder",
    "MultiVectors",
    "SparseEncoder",
    "SparseVector",
    "SparseVectors",
    "TruncationWarning",
    "UnsupportedModelError",
    "__version__",
    "convert",
    "search",
]
