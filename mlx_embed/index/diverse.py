"""Some of what a search has found, each near the query and unlike those before it."""

import numpy as np
import numpy.typing as npt

from mlx_embed.similarity import cosine


def diverse(query: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], k: int, relevance: float) -> list[int]:
    """Up to k rows by maximal marginal relevance (Carbonell and Goldstein, 1998), in the order in which it takes them.

    The first is the row nearest to the query. Each one after it has the most of `relevance` times its cosine with the
    query, less the rest times its largest cosine with a row that was taken; of equal ones the first.

    Args:
        query: [D].
        vectors: [n, D].
        k: how many rows.
        relevance: what likeness to the query counts, from 0 to 1; what is left of 1 counts for being unlike the others.
    """
    rows = vectors.astype(np.float64)
    near = cosine(query[None].astype(np.float64), rows)[0]
    taken: list[int] = []
    worth, alike = near.copy(), np.full(len(rows), -np.inf)
    while len(taken) < min(k, len(rows)):
        taken.append(int(np.argmax(worth)))
        alike = np.maximum(alike, cosine(rows[taken[-1:]], rows)[0])
        worth = relevance * near - (1 - relevance) * alike
        worth[taken] = -np.inf
    return taken
