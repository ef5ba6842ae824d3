"""The best rows of a matrix on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.launch import at_once, launch, vector
from custom_kernels.ranking import best

# Rows of a block, a power of 2, and its threads.
CHUNK, THREADS = 1024, 256
# The widest rows for which a query and the scores fit a block's shared memory.
WIDEST = 8192


def top_k_scores(
    queries: mx.array, rows: mx.array, k: int, mask: mx.array | None = None, scales: mx.array | None = None
) -> mx.array:
    """A launch of `top_k_scores.cu`, a block for CHUNK rows and a query, and a sort of what it found.

    Of so many queries that one launch does not take them there are more.
    """
    width, count = rows.shape[1], rows.shape[0]
    if k > CHUNK or width > WIDEST:
        raise NotImplementedError(f"The CUDA kernel of top_k_scores takes a k up to {CHUNK} and rows up to {WIDEST}.")
    chunks = -(-count // CHUNK)
    codes = rows.dtype == mx.int8
    constants = {"WIDTH": width, "VEC": vector(width, rows.dtype, 32), "K": k, "CHUNK": CHUNK, "THREADS": THREADS}
    found = []
    for part in at_once(queries.shape[0], chunks, THREADS):
        n = part.stop - part.start
        out = launch(
            "top_k_scores",
            [
                queries[part],
                rows,
                mx.zeros(1, dtype=mx.uint8) if mask is None else mask,
                mx.zeros(1) if scales is None else scales,
            ],
            [count, chunks],
            (chunks * n, THREADS),
            (n, chunks, 2, k),
            mx.float32,
            {} if codes else {"T": rows.dtype},
            {**constants, "MASKED": mask is not None, "SCALED": scales is not None},
            {"T": "signed char"} if codes else {},
        )
        parts = out.transpose(2, 0, 1, 3).reshape(2, n, chunks * k)
        found.append(best(parts[0], parts[1].astype(mx.int32), k))
    return mx.concatenate(found)
