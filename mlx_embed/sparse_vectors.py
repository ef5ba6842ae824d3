"""Sparse vectors: of each, the places that are not 0 and what is there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import row_of

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


class SparseVector(NamedTuple):
    """One vector.

    Attributes:
        indices: int32 [K], the places that are not 0, ascending.
        values: float32 [K].
    """

    indices: Int32
    values: Float32


@dataclass(frozen=True, eq=False)
class SparseVectors(Sequence[SparseVector]):
    """Vectors as the rows of a matrix in compressed rows (CSR).

    Attributes:
        indptr: int64 [N + 1], where each row begins in the other two, and their length.
        indices: int32 [K], ascending within a row.
        values: float32 [K].
        dimension: of the vectors.
    """

    indptr: npt.NDArray[np.int64]
    indices: Int32
    values: Float32
    dimension: int

    @classmethod
    def of(cls, rows: Sequence[SparseVector], dimension: int) -> "SparseVectors":
        """Rows, one after the other."""
        indptr = np.cumsum([0, *(len(row.indices) for row in rows)], dtype=np.int64)
        indices = np.concatenate([np.zeros(0, np.int32), *(row.indices for row in rows)])
        values = np.concatenate([np.zeros(0, np.float32), *(row.values for row in rows)])
        return cls(indptr, indices, values, dimension)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @overload
    def __getitem__(self, place: int) -> SparseVector: ...

    @overload
    def __getitem__(self, place: slice) -> "SparseVectors": ...

    def __getitem__(self, place: int | slice) -> "SparseVector | SparseVectors":
        if isinstance(place, slice):
            return SparseVectors.of([self[i] for i in range(len(self))[place]], self.dimension)
        row = row_of(place, len(self))
        part = slice(self.indptr[row], self.indptr[row + 1])
        return SparseVector(self.indices[part], self.values[part])

    def __iter__(self) -> Iterator[SparseVector]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"SparseVectors({len(self)} of dimension {self.dimension}, {len(self.values)} values)"

    def dense(self) -> Float32:
        """float32 [N, dimension]."""
        out = np.zeros((len(self), self.dimension), dtype=np.float32)
        out[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = self.values
        return out

    def scipy(self) -> Any:
        """A scipy.sparse.csr_array [N, dimension], which shares the memory; needs scipy."""
        from scipy.sparse import csr_array  # type: ignore[import-untyped]

        return csr_array((self.values, self.indices, self.indptr), shape=(len(self), self.dimension))

    def times(self, vector: SparseVector) -> npt.NDArray[np.float64]:
        """The products of each row with a vector: [N]."""
        whole = np.zeros(self.dimension)
        whole[vector.indices] = vector.values
        sums = np.concatenate([[0.0], np.cumsum(whole[self.indices] * self.values)])
        found: npt.NDArray[np.float64] = np.diff(sums[self.indptr])
        return found


def sparsified(rows: Float32, most: int | None) -> Iterator[SparseVector]:
    """Each of rows [n, D] but for its zeros; of at most `most` values, the largest."""
    for row in rows:
        places = np.flatnonzero(row)
        if most is not None and len(places) > most:
            places = np.sort(places[np.argpartition(-np.abs(row[places]), most - 1)[:most]])
        yield SparseVector(places.astype(np.int32), row[places])


def require_sparse(given: object) -> None:
    """Raise TypeError for anything but what a sparse model's `encode` gives."""
    if not isinstance(given, (SparseVector, SparseVectors)):
        raise TypeError(
            f"A {type(given).__name__} was given, where SparseVectors are needed, as `encode` makes them, or one "
            "SparseVector."
        )
