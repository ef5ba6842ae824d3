"""Late interaction on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.launch import launch

THREADS = 256


def max_sim(queries: mx.array, query_starts: mx.array, documents: mx.array, document_starts: mx.array) -> mx.array:
    """One launch of `max_sim.cu`, a block for each document and query."""
    n, count = query_starts.shape[0] - 1, document_starts.shape[0] - 1
    return launch(
        "max_sim",
        [queries, query_starts, documents, document_starts],
        [count],
        (n * count, THREADS),
        (n, count),
        mx.float32,
        {"T": queries.dtype},
        {"WIDTH": queries.shape[1]},
    )
