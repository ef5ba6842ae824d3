"""The best rows of a matrix on Metal."""

import mlx.core as mx

from custom_kernels.metal.launch import kernel
from custom_kernels.ranking import best

# Rows of a threadgroup, a power of 2, and its threads.
CHUNK, THREADS = 1024, 256


def top_k_scores(
    queries: mx.array,
    rows: mx.array,
    k: int,
    mask: mx.array | None = None,
    scales: mx.array | None = None,
    *,
    chunk: int = CHUNK,
) -> mx.array:
    """One launch of `top_k_scores.metal`, a threadgroup for `chunk` rows and a query, and a sort of what it found."""
    n, count = queries.shape[0], rows.shape[0]
    if k > chunk:
        raise NotImplementedError(f"The Metal kernel of top_k_scores finds at most the best {chunk}.")
    chunks = -(-count // chunk)
    (out,) = kernel("top_k_scores", "queries", "rows", "mask", "scales", "count")(
        # Without a mask or scales the kernel still has the parameter, and never reads it.
        inputs=[
            queries,
            rows,
            queries if mask is None else mask,
            queries if scales is None else scales,
            mx.array([count], dtype=mx.int32),
        ],
        template=[
            ("WIDTH", queries.shape[1]),
            ("K", k),
            ("CHUNK", chunk),
            ("THREADS", THREADS),
            ("MASKED", mask is not None),
            ("SCALED", scales is not None),
        ],
        grid=(chunks * THREADS, n, 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=[(n, chunks, 2, k)],
        output_dtypes=[mx.float32],
        stream=mx.gpu,
    )
    scores, places = (part.reshape(n, chunks * k) for part in mx.split(out, 2, axis=2))
    return best(scores, places.astype(mx.int32), k)
