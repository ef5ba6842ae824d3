"""Late interaction on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.launch import at_once, launch

THREADS = 256


def max_sim(queries: mx.array, query_starts: mx.array, documents: mx.array, document_starts: mx.array) -> mx.array:
    """Launches of `max_sim.cu`, a block for each document and query: one, unless there are millions of them."""

    def one(asked: slice, texts: slice) -> mx.array:
        n, count = asked.stop - asked.start, texts.stop - texts.start
        starts = query_starts[asked.start : asked.stop + 1], document_starts[texts.start : texts.stop + 1]
        return launch(
            "max_sim",
            [queries, starts[0], documents, starts[1]],
            [count],
            (n * count, THREADS),
            (n, count),
            mx.float32,
            {"T": queries.dtype},
            {"WIDTH": queries.shape[1]},
        )

    n, count = query_starts.shape[0] - 1, document_starts.shape[0] - 1
    columns = []
    for texts in at_once(count, 1, THREADS):
        rows = [one(asked, texts) for asked in at_once(n, texts.stop - texts.start, THREADS)]
        columns.append(mx.concatenate(rows))
    return mx.concatenate(columns, axis=1)
