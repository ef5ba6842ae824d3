"""Late interaction on Metal."""

import mlx.core as mx

from custom_kernels.metal.launch import kernel, shared_source

THREADS = 256


def max_sim(queries: mx.array, query_starts: mx.array, documents: mx.array, document_starts: mx.array) -> mx.array:
    """One launch of `max_sim.metal`, a threadgroup for each document and query."""
    n, count = query_starts.size - 1, document_starts.size - 1
    (out,) = kernel(
        "max_sim", "queries", "query_starts", "documents", "document_starts", header=shared_source("greatest")
    )(
        inputs=[queries, query_starts, documents, document_starts],
        template=[("WIDTH", queries.shape[1])],
        grid=(count * THREADS, n, 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=[(n, count)],
        output_dtypes=[mx.float32],
        stream=mx.gpu,
    )
    return out
