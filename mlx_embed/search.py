"""The documents nearest to each query, by comparing every vector with every other."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import numbers, positive_number

# Values of a block of scores, float64: 32 MiB.
_BLOCK = 2**22
# Documents whose float64 copies are held at a time.
_DOCUMENTS = 2**13
# Below this place in a key is the document's, above it the score's.
_SCORE = np.uint64(32)


class Hits(NamedTuple):
    """What `search` finds.

    Attributes:
        scores: float32 [N, k], best first.
        places: int64 [N, k], the rows of document_vectors that have them.
    """

    scores: npt.NDArray[np.float32]
    places: npt.NDArray[np.int64]


def search(query_vectors: Any, document_vectors: Any, k: int = 10) -> Hits:
    """The k documents with the largest inner product with each query: the cosine, for vectors of length 1.

    Scores are computed in float64 and rounded to float32 once, so that equal documents have equal scores wherever they
    stand; of equal scores the first document comes first. Memory is bounded, whatever the number of documents.

    Args:
        query_vectors: [N, D], or [D] for one query: floats of any width, in numpy, MLX or lists.
        document_vectors: [M, D], likewise.
        k: documents a query; all of them where there are fewer.

    Returns:
        scores and places [N, min(k, M)]; without the N for one query.

    Raises:
        TypeError: vectors that are no floats, integers of `output_dtype="int8"` for example; a k that is no number.
        ValueError: other shapes, vectors of different lengths, a value that is not finite, or a k below 1.
    """
    k = positive_number("k", k, "documents")
    queries, documents = _floats("query_vectors", query_vectors), _floats("document_vectors", document_vectors)
    single = queries.ndim == 1
    if queries.ndim not in (1, 2) or documents.ndim != 2 or queries.shape[-1] != documents.shape[1]:
        raise ValueError(
            "search needs query_vectors [N, D] and document_vectors [M, D] of one length D, got shapes "
            f"{queries.shape} and {documents.shape}."
        )
    if len(documents) > 2**32:
        raise ValueError(f"search takes at most 2**32 documents, got {len(documents)}.")
    queries = np.atleast_2d(queries)
    wide = _finite("query_vectors", queries, 0)
    keys = np.empty((len(queries), 0), dtype=np.uint64)
    step = max(1, _BLOCK // _DOCUMENTS)
    for start in range(0, len(documents), _DOCUMENTS):
        block = _finite("document_vectors", documents[start : start + _DOCUMENTS], start).T
        best = [_best(wide[i : i + step] @ block, start, k) for i in range(0, max(1, len(queries)), step)]
        keys = np.concatenate([keys, np.concatenate(best)], axis=1)
        keys = np.partition(keys, k - 1, axis=1)[:, :k] if keys.shape[1] > k else keys
    hits = Hits(*_unkeyed(np.sort(keys, axis=1)))
    return Hits(hits.scores[0], hits.places[0]) if single else hits


def _best(scores: npt.NDArray[np.float64], start: int, k: int) -> npt.NDArray[np.uint64]:
    """The k least keys of each row of scores [n, m], whose first column is of document `start`."""
    keys = _keyed(scores.astype(np.float32), start)
    return np.partition(keys, k - 1, axis=1)[:, :k] if keys.shape[1] > k else keys


def _keyed(scores: npt.NDArray[np.float32], start: int) -> npt.NDArray[np.uint64]:
    """Integers in the order of the answer: those of larger scores are less, then those of earlier places.

    The bits of floats, read as integers, have the floats' order where they are positive, and the reverse where not.
    """
    bits = (scores + np.float32(0)).view(np.uint32)  # adding 0 makes -0 the 0 that it equals
    descending = np.where(bits >> np.uint32(31), bits, ~bits & np.uint32(0x7FFFFFFF))
    places = np.arange(start, start + scores.shape[1], dtype=np.uint64)
    return (descending.astype(np.uint64) << _SCORE) | places


def _unkeyed(keys: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    descending = (keys >> _SCORE).astype(np.uint32)
    bits = np.where(descending >> np.uint32(31), descending, ~descending & np.uint32(0x7FFFFFFF))
    return bits.view(np.float32), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _floats(name: str, vectors: Any) -> npt.NDArray[Any]:
    array = numbers(name, vectors)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name} has dtype {array.dtype}, where search needs floats.")
    return array


def _finite(name: str, vectors: npt.NDArray[Any], start: int) -> npt.NDArray[np.float64]:
    """The vectors in float64; the first of them is number `start`."""
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise ValueError(f"{name}[{start + int(np.argmax(bad))}] has a value that is not finite.")
    return vectors.astype(np.float64)
