"""Late interaction (ColBERT's MaxSim): each query's tokens look for their nearest token of each document.

Of the products of all tokens with all tokens nothing is kept but a number for each query and document.
"""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx

from custom_kernels import cuda, metal
from custom_kernels.arrays import FLOATS, random, spelled, starts
from custom_kernels.choice.op import Arguments, Load, Op
from custom_kernels.ops.linear_max import reference_linear_max
from custom_kernels.packed import sequence_ids
from custom_kernels.parameters import Linear


def max_sim(
    queries: mx.array,
    query_starts: mx.array,
    documents: mx.array,
    document_starts: mx.array,
    *,
    backend: str | None = None,
) -> mx.array:
    """The sum over each query's tokens of their greatest product with a document's tokens, for all pairs.

    Args:
        queries: [Tq, D], the tokens of Q queries end to end.
        query_starts: int32 [Q + 1], from 0 to Tq, where each begins.
        documents: [Td, D] of the queries' dtype, the tokens of N documents end to end.
        document_starts: int32 [N + 1], from 0 to Td.
        backend: as in `layer_norm`, "fast" aside.

    Returns:
        float32 [Q, N]; -inf for a document without tokens, and else 0 for a query without.

    Raises:
        ValueError: shapes that do not fit, or an unknown back end.
        TypeError: dtypes that differ, or are not float32, float16 or bfloat16.
        RuntimeError: a named back end that this machine does not have.
    """
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1] or not queries.shape[1]:
        raise ValueError(
            f"max_sim needs queries [Tq, D] and documents [Td, D], got {queries.shape}, {documents.shape}."
        )
    for name, of in (("query_starts", query_starts), ("document_starts", document_starts)):
        if of.ndim != 1 or of.dtype != mx.int32 or not of.size:
            raise ValueError(f"max_sim needs {name} int32 [n + 1], got {of.dtype} {of.shape}.")
    if queries.dtype not in FLOATS or documents.dtype != queries.dtype:
        raise TypeError(
            "max_sim takes queries and documents of one dtype, float32, float16 or bfloat16, got "
            f"{spelled(queries.dtype)} and {spelled(documents.dtype)}."
        )
    if not queries.size or not documents.size or query_starts.size == 1 or document_starts.size == 1:
        return reference_max_sim(queries, query_starts, documents, document_starts)
    pick = MAX_SIM.pick(backend, Variant(queries.dtype, queries.shape[1]), Load.of(documents.shape[0]))
    return pick(queries, query_starts, documents, document_starts)


class Variant(NamedTuple):
    """What a kernel is compiled for, and may be wrong for."""

    dtype: mx.Dtype
    width: int

    def __str__(self) -> str:
        return f"{spelled(self.dtype)}, {self.width} wide"


def reference_max_sim(
    queries: mx.array, query_starts: mx.array, documents: mx.array, document_starts: mx.array
) -> mx.array:
    """The same from composed MLX ops: block by block, with a number for each document and query's token in between."""
    n, count, total = query_starts.shape[0] - 1, document_starts.shape[0] - 1, queries.shape[0]
    scores = mx.zeros((n, count))
    if total and count and documents.size:
        found = reference_linear_max(documents, Linear(queries, None), document_starts)
        scores = scores.at[sequence_ids(query_starts, total)].add(found.T)
    return mx.where(document_starts[1:] > document_starts[:-1], scores, -mx.inf)


def _sample(variant: Variant, load: Load | None) -> Arguments:
    dtype, width = variant
    # More tokens than a group of the kernels' in one of the queries, and more than a tile in some documents.
    asked = [3, 37, 0, 1, 32, 2, 1] if load is None else [32]
    texts = [1, 40, 32, 65, 7, 2, 1] if load is None else [128] * (load.tokens // 128) or [load.tokens]
    queries = random(sum(asked), width, dtype=dtype)
    return (queries, starts(*asked), random(sum(texts), width, dtype=dtype, seed=1), starts(*texts)), {}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for dtype in (mx.float16, mx.float32):
        for width in (96, 128):
            for tokens in (128, 4096):
                yield Variant(dtype, width), Load(tokens)


MAX_SIM = Op(
    "max_sim",
    {"metal": metal.max_sim, "cuda": cuda.max_sim},
    reference_max_sim,
    lambda variant: {"reference": reference_max_sim},
    _sample,
    _typical,
)
