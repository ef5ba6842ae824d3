"""Late interaction (ColBERT's MaxSim)."""

import numpy as np

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, Ints, floats, ints
from custom_kernels.cpu.linear import Linear
from custom_kernels.cpu.linear_max import linear_max

# Maxima that are there at once: one for each document and token of a query.
AT_ONCE = 2**24


def max_sim(queries: Floats, query_starts: Ints, documents: Floats, document_starts: Ints) -> Floats:
    """The sum over each query's tokens of their greatest product with a document's tokens, for all pairs.

    The queries' tokens are laid out as a linear layer, whose outputs' maxima over each document `linear_max` gives.

    Args:
        queries: [Tq, D], the tokens of Q queries end to end.
        query_starts: [Q + 1] int32, from 0 to Tq, where each begins.
        documents: [Td, D], the tokens of N documents end to end.
        document_starts: [N + 1] int32, from 0 to Td.

    Returns:
        [Q, N]; -inf for a document without tokens, and else 0 for a query without.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or starts that do not run from 0 to the end.
    """
    floats("max_sim", "queries", queries, (None, None))
    floats("max_sim", "documents", documents, (None, queries.shape[1]))
    ints("max_sim", "query_starts", query_starts, (None,))
    ints("max_sim", "document_starts", document_starts, (None,))
    total, count, texts = queries.shape[0], query_starts.size - 1, document_starts.size - 1
    if query_starts[0] != 0 or query_starts[-1] != total or (np.diff(query_starts) < 0).any():
        raise ValueError(f"max_sim needs query_starts that run from 0 to {total}, and never back.")
    out = memory.empty((count, texts))
    first = 0
    while first < count:
        # As many queries as have room, and one at least.
        room = query_starts[first] + AT_ONCE // max(texts, 1)
        last = max(int(np.searchsorted(query_starts, room, side="right")) - 1, first + 1)
        begin, end = int(query_starts[first]), int(query_starts[last])
        out[first:last] = 0
        if begin < end:
            found = linear_max(documents, Linear(queries[begin:end]), document_starts)
            for query in range(first, last):
                own = slice(query_starts[query] - begin, query_starts[query + 1] - begin)
                out[query] = found[:, own].sum(axis=1)
        first = last
    out[:, np.diff(document_starts) == 0] = -np.inf
    return out
