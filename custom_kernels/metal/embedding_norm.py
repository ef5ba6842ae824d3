"""The embedding layer on Metal."""

from collections.abc import Sequence

import mlx.core as mx

from custom_kernels.metal.launch import kernel, row_threads, shared_source


def embedding_norm(
    lookups: Sequence[tuple[mx.array, mx.array]], weight: mx.array | None, bias: mx.array | None, eps: float
) -> mx.array:
    """One launch of `embedding_norm.metal`: a threadgroup a token, at most 512 threads."""
    table, ids = lookups[0]
    width = table.shape[1]
    reads, threads = row_threads(width)
    # What is absent is passed as something else of the same kind, and never read.
    padded = [*lookups, lookups[0], lookups[0]][:3]
    pairs = ("table0", "ids0", "table1", "ids1", "table2", "ids2")
    (out,) = kernel("embedding_norm", *pairs, "weight", "bias", "eps", header=shared_source("normalise"))(
        inputs=[
            *(array for pair in padded for array in pair),
            table if weight is None else weight,
            table if bias is None else bias,
            mx.array([eps], dtype=mx.float32),
        ],
        template=[
            ("T", table.dtype),
            ("WIDTH", width),
            ("READS", reads),
            ("LOOKUPS", len(lookups)),
            ("HAS_NORM", weight is not None),
            ("HAS_BIAS", bias is not None),
        ],
        grid=(ids.size * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[(ids.size, width)],
        output_dtypes=[table.dtype],
        stream=mx.gpu,
    )
    return out
