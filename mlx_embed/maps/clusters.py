"""Clusters of a map, which are hills of its density, and the words that tell them apart."""

from collections import Counter
from collections.abc import Sequence
from math import log, sqrt

import numpy as np
import numpy.typing as npt

from mlx_embed.words import words_of

Labels = npt.NDArray[np.int32]

# Cells of the density's grid along an axis, and how far each point's weight is spread, in cells.
CELLS, SPREAD = 160, 2.0
# Two hills are one where the pass between them is higher than this share of the lower one.
PASS = 0.6
# A cluster has at least so many texts, and this share of all.
LEAST_TEXTS, LEAST_SHARE = 5, 0.002
# Of a cluster no text, in cells where the density is below this share of its hill's.
FOOT = 0.05
WORDS, LEAST_WORD, CHARACTERS = 4, 3, 2000


def clustered(places: npt.NDArray[np.float32]) -> Labels:
    """The cluster of each of the places [N, 2] in 0..1, from 0, the largest first; -1 of those that lie between.

    A cluster is a hill of the smoothed density: what is parted from it by a deep enough valley is another.
    """
    cells = np.minimum((places * CELLS).astype(np.int64), CELLS - 1)
    flat = cells[:, 0] * CELLS + cells[:, 1]
    counts = np.bincount(flat, minlength=CELLS * CELLS).reshape(CELLS, CELLS).astype(np.float64)
    hill = _hills(_smooth(counts).reshape(-1))[flat]
    sizes = Counter(hill[hill >= 0].tolist())
    least = max(LEAST_TEXTS, LEAST_SHARE * len(places))
    kept = [peak for peak, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])) if size >= least]
    rank = {peak: place for place, peak in enumerate(kept)}
    return np.array([rank.get(peak, -1) for peak in hill.tolist()], dtype=np.int32)


def words(texts: Sequence[str], labels: Labels) -> list[list[str]]:
    """The words of each cluster that tell it from the others, the best first.

    By c-TF-IDF, with roots of the counts, so that what is everywhere counts less; a word counts once a text.
    Grootendorst: BERTopic, 2022 (https://arxiv.org/abs/2203.05794).
    """
    of_cluster: list[Counter[str]] = [Counter() for _ in range(int(labels.max(initial=-1)) + 1)]
    everywhere: Counter[str] = Counter()
    for text, label in zip(texts, labels.tolist(), strict=True):
        found = set(words_of(text[:CHARACTERS].lower().replace("_", " ")))
        found = {word for word in found if len(word) >= LEAST_WORD and not word[0].isdigit()}
        everywhere.update(found)
        if label >= 0:
            of_cluster[label].update(found)
    average = sum(everywhere.values()) / max(len(of_cluster), 1)
    return [_best(counts, everywhere, average) for counts in of_cluster]


def _best(counts: Counter[str], everywhere: Counter[str], average: float) -> list[str]:
    total = sum(counts.values())

    def weight(word: str) -> float:
        return sqrt(counts[word] / total) * log(1 + average / everywhere[word])

    # What a single text has says nothing of a cluster.
    common = [word for word, count in counts.items() if count > 1]
    return sorted(common, key=lambda word: (-weight(word), word))[:WORDS]


def _smooth(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The density of counts [CELLS, CELLS], each spread over the cells around it."""
    reach = np.arange(-int(3 * SPREAD), int(3 * SPREAD) + 1)
    kernel = np.exp(-0.5 * (reach / SPREAD) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        counts = np.apply_along_axis(np.convolve, axis, counts, kernel, mode="same")
    return counts


def _hills(density: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The hill of each cell [CELLS * CELLS], as the cell of its peak; -1 of cells at no hill's foot.

    Cells are flooded from above: one that touches no hill begins one, and one that touches several is a pass.
    """
    hill = np.full(len(density), -1, dtype=np.int64)
    above: dict[int, int] = {}

    def peak(cell: int) -> int:
        while above[cell] != cell:
            cell = above[cell] = above[above[cell]]
        return cell

    order = np.argsort(-density, kind="stable")
    heights = density.tolist()
    for cell in order[: int((density > 0).sum())].tolist():
        row, column = divmod(cell, CELLS)
        beside = {
            peak(int(hill[other_row * CELLS + other_column]))
            for other_row in range(max(row - 1, 0), min(row + 2, CELLS))
            for other_column in range(max(column - 1, 0), min(column + 2, CELLS))
            if hill[other_row * CELLS + other_column] >= 0
        }
        if not beside:
            above[cell] = cell
            hill[cell] = cell
            continue
        highest = max(beside, key=lambda one: heights[one])
        for other in beside:
            if other != highest and heights[cell] > PASS * heights[other]:
                above[other] = highest
        hill[cell] = highest
    found = np.array([-1 if cell < 0 else peak(cell) for cell in hill.tolist()], dtype=np.int64)
    low = (found >= 0) & (density < FOOT * density[found])
    return np.where(low, -1, found)
