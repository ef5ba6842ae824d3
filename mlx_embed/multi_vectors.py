"""Vectors of texts that have one for each of their tokens, laid end to end; and averages of those near each other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import numbers, row_of
from mlx_embed.checkpoint.multi_vector import Clustering
from mlx_embed.ids import ends

Float32: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MultiVectors(Sequence[Float32]):
    """Some texts' vectors: a sequence of arrays [L, D].

    Attributes:
        vectors: float32 [T, D], of all texts end to end.
        offsets: int64 [N + 1], where each text's begin, and T.
    """

    vectors: Float32
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, texts: Any, dimension: int = 0) -> "MultiVectors":
        """From arrays [L, D], a block [N, L, D], or the vectors [L, D] of one text.

        Of no texts, vectors are as long as `dimension` says.

        Raises:
            ValueError: arrays of other shapes, or of different dimensions.
            TypeError: no arrays of numbers.
        """
        if isinstance(texts, MultiVectors):
            return texts
        if isinstance(texts, np.ndarray) and texts.ndim == 2:
            texts = texts[None]
        if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Iterable):
            raise TypeError(f"A {type(texts).__name__} was given, where vectors are needed, as `encode` makes them.")
        arrays = [np.asarray(numbers("A text's vectors", text), dtype=np.float32) for text in texts]
        if any(array.ndim != 2 for array in arrays) or len({array.shape[1] for array in arrays}) > 1:
            raise ValueError(
                "A vector a token is an array [L, D] a text, of one D, got shapes "
                f"{sorted({array.shape for array in arrays})[:4]}."
            )
        width = arrays[0].shape[1] if arrays else dimension
        flat = np.concatenate([np.zeros((0, width), np.float32), *arrays])
        return cls(flat, ends(list(map(len, arrays))))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, place: int) -> Float32: ...

    @overload
    def __getitem__(self, place: slice) -> "MultiVectors": ...

    def __getitem__(self, place: int | slice) -> "Float32 | MultiVectors":
        if isinstance(place, slice):
            return MultiVectors.of([self[i] for i in range(len(self))[place]], self.vectors.shape[1])
        row = row_of(place, len(self))
        return self.vectors[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[Float32]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"MultiVectors({len(self)} texts, {len(self.vectors)} vectors of dimension {self.vectors.shape[1]})"


def clustered(vectors: Float32, how: Clustering) -> Float32:
    """[L, D] to fewer: but for the first, `how.factor` times as few, each the average of some that are near each other.

    They are joined by Ward's criterion on the distance 1 - cosine, as by sentence-transformers' token pooling, and are
    in the order of the first that each has joined.
    """
    kept, rest = vectors[: how.protected], vectors[how.protected :]
    wanted = max(int(len(rest) // how.factor), 1)
    if how.factor > 1 and wanted < len(rest):
        groups = _ward(np.clip(1 - rest @ rest.T, 0, 2), wanted)
        sums = np.zeros((int(groups.max()) + 1, rest.shape[1]), dtype=np.float32)
        np.add.at(sums, groups, rest)
        rest = sums / np.bincount(groups).astype(np.float32)[:, None]
    out = np.concatenate([kept, rest])
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12) if how.unit else out


def _ward(distances: Float32, wanted: int) -> npt.NDArray[np.int64]:
    """The group of each row of a matrix of distances, at most `wanted` groups, numbered by their first rows."""
    count = len(distances)
    squared = distances.astype(np.float64) ** 2
    np.fill_diagonal(squared, np.inf)
    sizes = np.ones(count)
    merges: list[tuple[float, int, int]] = []
    chain: list[int] = []
    # Nearest neighbours of nearest neighbours, until two are each other's: these are joined at some time in any case.
    while len(merges) < count - 1:
        if not chain:
            chain.append(int(np.flatnonzero(sizes)[0]))
        while True:
            here = chain[-1]
            row = squared[here]
            near = int(row.argmin())
            if len(chain) > 1 and row[chain[-2]] <= row[near]:
                near = chain[-2]
                break
            chain.append(near)
        del chain[-2:]
        first, second = sorted((here, near))
        merges.append((float(squared[first, second]), first, second))
        a, b = sizes[first], sizes[second]
        joined = (a + sizes) * squared[first] + (b + sizes) * squared[second] - sizes * squared[first, second]
        joined = np.where(np.isfinite(joined) & (sizes > 0), joined / (a + b + np.maximum(sizes, 1)), np.inf)
        sizes[second], sizes[first] = a + b, 0
        joined[[first, second]] = np.inf
        squared[second], squared[:, second] = joined, joined
        squared[first], squared[:, first] = np.inf, np.inf
    return _joined(count, merges, wanted)


def _joined(count: int, merges: Iterable[tuple[float, int, int]], wanted: int) -> npt.NDArray[np.int64]:
    """The groups of `count` rows when as many merges were made, the nearest first, as leave at most `wanted` groups."""
    parent = np.arange(count)

    def root(place: int) -> int:
        while parent[place] != place:
            place = parent[place]
        return place

    ordered = sorted(merges, key=lambda merge: merge[0])
    last = ordered[count - wanted - 1][0]
    for height, first, second in ordered:
        if height <= last:
            parent[root(first)] = root(second)
    roots = np.array([root(place) for place in range(count)])
    _, firsts, groups = np.unique(roots, return_index=True, return_inverse=True)
    found: npt.NDArray[np.int64] = np.argsort(np.argsort(firsts))[groups]
    return found
