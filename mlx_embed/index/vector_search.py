"""The texts whose vectors are nearest to a query's: exactly, whatever the rows are that are scanned.

The rows of every segment are scanned in the dtype that the index has for that, and the best of them, a few more than
asked for, are compared again in float64 on their float32 vectors. How far a scanned score can be from the exact one is
known, so it is known too whether a text that was left out could belong among the best; then more are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from custom_kernels import cpu
from custom_kernels import top_k_scores as scores_of_arrays
from mlx_embed.index import segments
from mlx_embed.index.blocks import Numbers
from mlx_embed.index.segments import BLOCK_ROWS, EXACT, SCALE, lengths_of
from mlx_embed.index.view import Mask, Segment, View

Float32 = npt.NDArray[np.float32]

# Candidates beyond which equal or nearly equal scores are ordered by number alone.
MOST_CANDIDATES = 2**14
# Rows that the op takes at a time where there are no native kernels: they are copied.
_COPIED_ROWS = 2**14
# What a float32 sum of products can be off by, for each of them.
_ROUNDING = 2.0**-24


@dataclass(frozen=True)
class Found:
    """What was found for one query, best first.

    Attributes:
        numbers: int64 [n], of the texts.
        scores: float32 [n].
    """

    numbers: Numbers
    scores: Float32


def search(view: View, queries: Float32, k: int, row_dtype: str, wanted: Numbers | None = None) -> list[Found]:
    """At least the k nearest texts of each query [n, D], and all that are as near as the last of these.

    Args:
        view: what is searched.
        queries: [n, D]; a zero vector finds nothing.
        k: how many.
        row_dtype: what is scanned.
        wanted: the numbers of the texts that count, rising; None: all.

    Raises:
        StoreCorruptError: rows that are not as they were written.
    """
    masks = _masks(view, wanted)
    searched = [(segment, mask) for segment, mask in masks if mask.any()]
    lengths = lengths_of(queries)
    found = [Found(np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(queries)
    if not searched:
        return found
    scanned_columns = (row_dtype, SCALE)
    segments.check(s.columns[name] for s, _ in searched for name in scanned_columns if name in s.columns)
    open_queries = np.flatnonzero(lengths > 0)
    candidates = 2 * k + 32 if row_dtype == "int8" else k + 16
    # How far a scanned score may be from the exact one, for a query of length 1.
    error = max(s.error + s.norm * _ROUNDING * 2 * queries.shape[1] for s, _ in searched)
    while len(open_queries):
        asked = np.ascontiguousarray(queries[open_queries])
        scanned = _scan(searched, asked, candidates, row_dtype)
        exact = _rescore(searched, asked, scanned)
        left = []
        for i, query in enumerate(open_queries):
            there = scanned.places[i] >= 0
            order = np.lexsort((scanned.numbers[i], -exact[i]))[: int(there.sum())]
            scores, numbers = exact[i][order], scanned.numbers[i][order]
            last = scores[min(k, len(scores)) - 1] if len(scores) else -np.inf
            if scanned.bound[i] + error * lengths[query] >= last and candidates < MOST_CANDIDATES:
                left.append(query)
                continue
            kept = int((scores >= last).sum())
            found[query] = Found(numbers[:kept], scores[:kept])
        open_queries, candidates = np.array(left, dtype=np.intp), candidates * 4
    return found


def blanks(view: View, wanted: Numbers | None = None) -> Numbers:
    """The numbers of the texts without a direction, which `search` does not find."""
    found = [np.zeros(0, dtype=np.int64)]
    for segment, mask in _masks(view, wanted, blank=True):
        found.append(segment.numbers[segment.places(mask)])
    return np.concatenate(found)


@dataclass(frozen=True)
class _Scanned:
    """The candidates of each query, [n, c] each; place -1 where there are no more.

    `bound` [n] is the largest score that a text which is no candidate may have.
    """

    segments: npt.NDArray[np.intp]
    places: npt.NDArray[np.intp]
    numbers: Numbers
    bound: npt.NDArray[np.float64]


def _masks(view: View, wanted: Numbers | None, blank: bool = False) -> list[tuple[Segment, Mask]]:
    """The rows of each segment that count: there, wanted, and with a direction, or without."""
    if wanted is None:
        among: dict[int, Mask] = {}
    else:
        among = {segment.number: segment.bits(places) for segment, _, places in view.located(wanted)}
    masks = []
    for segment in view.segments:
        bits = ~segment.dead & (segment.blank if blank else ~segment.blank)
        if wanted is not None:
            bits &= among.get(segment.number, np.zeros_like(bits))
        if over := len(segment.numbers) % 8:
            bits[-1] &= (1 << over) - 1
        masks.append((segment, bits))
    return masks


def _scan(searched: Sequence[tuple[Segment, Mask]], queries: Float32, count: int, row_dtype: str) -> _Scanned:
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    bound = np.full(len(queries), -np.inf)
    for i, (segment, mask) in enumerate(searched):
        scales = segment.columns[SCALE].rows[:, 0] if SCALE in segment.columns else None
        counted = int(np.unpackbits(mask).sum())
        best = _top_k(queries, segment.columns[row_dtype].rows, min(count, counted), mask, scales)
        scores, places = best[:, 0], best[:, 1].astype(np.intp)
        if counted > count:
            bound = np.maximum(bound, scores[:, -1])
        parts.append((scores, places, np.full(places.shape, i)))
    scores, places, owners = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    if scores.shape[1] > count:
        order = np.argsort(-scores, axis=1, kind="stable")
        cut = np.take_along_axis(scores, order[:, count : count + 1], axis=1)[:, 0]
        bound = np.maximum(bound, cut)
        places, owners = (np.take_along_axis(part, order[:, :count], axis=1) for part in (places, owners))
    numbers = np.zeros(places.shape, dtype=np.int64)
    for i, (segment, _) in enumerate(searched):
        here = (owners == i) & (places >= 0)
        numbers[here] = segment.numbers[places[here]]
    return _Scanned(owners, places, numbers, bound)


def _rescore(searched: Sequence[tuple[Segment, Mask]], queries: Float32, scanned: _Scanned) -> Float32:
    """The exact scores of the candidates [n, c]; -infinity where there are none."""
    exact = np.full(scanned.places.shape, -np.inf, dtype=np.float32)
    for i, (segment, _) in enumerate(searched):
        here = (scanned.segments == i) & (scanned.places >= 0)
        places = np.where(here, scanned.places, -1)
        segments.check([segment.columns[EXACT]], np.unique(places[here] // BLOCK_ROWS))
        np.copyto(exact, _inner_products(queries, segment.exact, places), where=here)
    return exact


def _inner_products(queries: Float32, rows: Float32, places: npt.NDArray[np.intp]) -> Float32:
    if cpu.available():
        return cpu.inner_products(queries, rows, places.astype(np.int32))
    found = np.full(places.shape, -np.inf, dtype=np.float32)
    for i, row in enumerate(places):
        some = row >= 0
        found[i, some] = rows[row[some]].astype(np.float64) @ queries[i].astype(np.float64)
    return found


def _top_k(queries: Float32, rows: npt.NDArray[Any], k: int, mask: Mask, scales: Float32 | None) -> Float32:
    """As the op; where there are no native kernels, on MLX's arrays."""
    if scales is not None:
        scales = np.ascontiguousarray(scales)
    if cpu.available():
        return cpu.top_k_scores(queries, rows, k, mask, scales)
    parts = []
    for start in range(0, len(rows), _COPIED_ROWS):
        part = slice(start, start + _COPIED_ROWS)
        best = np.array(
            scores_of_arrays(
                mx.array(queries),
                mx.array(rows[part]),
                k,
                mx.array(mask[start // 8 : (start + _COPIED_ROWS) // 8]),
                None if scales is None else mx.array(scales[part]),
            )
        )
        best[:, 1] += np.where(best[:, 1] < 0, 0, start)
        parts.append(best)
    whole = np.concatenate(parts, axis=2)
    order = np.argsort(-whole[:, 0], axis=1, kind="stable")[:, None, :k]
    return np.ascontiguousarray(np.take_along_axis(whole, order, axis=2))
