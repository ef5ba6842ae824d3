"""A search: by vectors, by words, or by both, whose ranks are then fused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from sqlite3 import Connection
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from mlx_embed.cross_encoder import CrossEncoder
from mlx_embed.index import filters, rows, text_search, vector_search
from mlx_embed.index.entries import Hit
from mlx_embed.index.filters import Filter
from mlx_embed.index.view import View

Float32: TypeAlias = npt.NDArray[np.float32]
Mode = Literal["hybrid", "vector", "text"]
MODES: tuple[str, ...] = get_args(Mode)

# Reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009): a rank counts 1 / (60 + rank).
FUSION = 60
# How far down each ranking is fused, and how many the reranker reads.
FUSED = 50
RERANKED = 50

# Of the texts that one way of searching has found: the number, and the score.
_Ranking: TypeAlias = list[tuple[int, float]]


@dataclass(frozen=True)
class Snapshot:
    """What a search looks at.

    Attributes:
        connection: in a transaction.
        view: the segments of the same commit.
        row_dtype: what is scanned.
        database: its path, for messages.
    """

    connection: Connection
    view: View
    row_dtype: str
    database: str


def search(
    snapshot: Snapshot,
    queries: Sequence[str],
    vectors: Float32 | None,
    k: int,
    mode: str,
    filter: Filter | None,
) -> list[list[Hit]]:
    """The k best texts of each query, best first; of equal ones in the order of their ids.

    Args:
        snapshot: what is searched.
        queries: for their words.
        vectors: theirs [n, D]; not needed for mode "text".
        k: how many.
        mode: one of MODES.
        filter: checked by `filters.checked`.
    """
    wanted = None if filter is None else filters.numbers(snapshot.connection, filter)
    depth = max(k, FUSED) if mode == "hybrid" else k
    by_vector: list[_Ranking] = [[] for _ in queries]
    by_text: list[_Ranking] = [[] for _ in queries]
    if vectors is not None and mode != "text":
        found = vector_search.search(snapshot.view, vectors, depth, snapshot.row_dtype, wanted)
        by_vector = [_pairs(one) for one in found]
    if mode != "vector":
        by_text = [text_search.search(snapshot.connection, query, depth, wanted) for query in queries]
    blanks: list[int] = []
    if mode == "vector" and any(len(ranking) < k for ranking in by_vector):
        blanks = vector_search.blanks(snapshot.view, wanted).tolist()
    numbers = {number for ranking in (*by_vector, *by_text) for number, _ in ranking}
    ids = rows.ids(snapshot.connection, sorted(numbers.union(blanks)))
    best = []
    for i, (vector, text) in enumerate(zip(by_vector, by_text, strict=True)):
        vector, text = _ordered(vector, ids)[:depth], _ordered(text, ids)[:depth]
        if mode == "vector" and len(vector) < k and vectors is not None and vectors[i].any():
            vector = _with_blanks(vector, blanks, ids)
        ranking = _fused(vector, text, ids) if mode == "hybrid" else [*vector, *text]
        best.append((ranking[:k], _ranks(vector), _ranks(text)))
    wanted_hits = sorted({number for ranking, _, _ in best for number, _ in ranking})
    hits = rows.hits(snapshot.connection, wanted_hits, snapshot.database)
    return [
        [
            replace(hits[number], score=score, vector_rank=vector.get(number), text_rank=text.get(number))
            for number, score in ranking
        ]
        for ranking, vector, text in best
    ]


def reranked(query: str, hits: Sequence[Hit], reranker: CrossEncoder) -> list[Hit]:
    """Hits by a reranker's score; by its logits where scores are equal, as `CrossEncoder.rank` has it, then by id."""
    if isinstance(reranker, CrossEncoder):
        by_id = sorted(hits, key=lambda hit: hit.id)
        ranked = reranker.rank(query, [hit.text for hit in by_id])
        return [replace(by_id[entry["corpus_id"]], score=entry["score"]) for entry in ranked]
    scores = reranker.predict([(query, hit.text) for hit in hits]).tolist() if hits else []
    scored = [replace(hit, score=score) for hit, score in zip(hits, scores, strict=True)]
    return sorted(scored, key=lambda hit: (-hit.score, hit.id))


def _pairs(found: vector_search.Found) -> _Ranking:
    return list(zip(found.numbers.tolist(), found.scores.tolist(), strict=True))


def _with_blanks(ranking: _Ranking, blanks: Sequence[int], ids: Mapping[int, str]) -> _Ranking:
    """Texts without a direction are behind all others, where there are not enough of these."""
    score = min(0.0, ranking[-1][1] if ranking else 0.0)
    return ranking + _ordered([(number, score) for number in blanks], ids)


def _ordered(ranking: _Ranking, ids: Mapping[int, str]) -> _Ranking:
    return sorted(ranking, key=lambda pair: (-pair[1], ids[pair[0]]))


def _ranks(ranking: _Ranking) -> dict[int, int]:
    return {number: rank for rank, (number, _) in enumerate(ranking, start=1)}


def _fused(vector: _Ranking, text: _Ranking, ids: Mapping[int, str]) -> _Ranking:
    """Reciprocal rank fusion of two rankings."""
    scores: dict[int, float] = {}
    for ranking in (vector, text):
        for number, rank in _ranks(ranking).items():
            scores[number] = scores.get(number, 0.0) + 1 / (FUSION + rank)
    return _ordered(list(scores.items()), ids)
