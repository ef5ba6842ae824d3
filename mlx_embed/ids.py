"""Ids: the token ids of several texts, laid end to end in one array."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

Int32: TypeAlias = npt.NDArray[np.int32]
Int64: TypeAlias = npt.NDArray[np.int64]


@dataclass(eq=False)  # frozen ones take 0.4 us more to make, a tenth of what a query's ids do
class Ids(Sequence[Any]):
    """A sequence of rows of ids, or of token types, each of them int32, a view of one array.

    It goes wherever a sequence of sequences of numbers does.

    Attributes:
        flat: int32 [T], the rows end to end.
        offsets: int64 [n + 1], the start of each row, and T.
    """

    flat: Int32
    offsets: Int64

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Ids":
        """Rows of any kind; those that are `Ids` already as they are."""
        if isinstance(rows, Ids):
            return rows
        arrays = [np.asarray(row, dtype=np.int32) for row in rows]
        return cls(np.concatenate([np.zeros(0, dtype=np.int32), *arrays]), ends(list(map(len, arrays))))

    @cached_property
    def lengths(self) -> Int32:
        """int32 [n], the ids of each row."""
        if len(self.offsets) == 2:  # a query's, for which the general way takes three times as long
            return np.array([len(self.flat)], dtype=np.int32)
        return np.subtract(self.offsets[1:], self.offsets[:-1], dtype=np.int32, casting="unsafe")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, place: int) -> Int32: ...

    @overload
    def __getitem__(self, place: "slice | Sequence[int] | npt.NDArray[np.integer]") -> "Ids": ...

    def __getitem__(self, place: "int | slice | Sequence[int] | npt.NDArray[np.integer]") -> "Int32 | Ids":
        if isinstance(place, (int, np.integer)):
            place = range(len(self))[place]
            return self.flat[self.offsets[place] : self.offsets[place + 1]]
        return self.pieces(self.offsets[:-1][place], self.offsets[1:][place])

    def __iter__(self) -> Iterator[Int32]:
        bounds = self.offsets.tolist()
        return (self.flat[start:end] for start, end in pairwise(bounds))

    def pieces(self, starts: Int64, stops: Int64) -> "Ids":
        """Rows made of pieces of the flat array: row i of the pieces from starts[i] to stops[i].

        Both are [n], or [n, k] for rows of k pieces each, one behind the other.
        """
        lengths = stops - starts
        before = ends(lengths.reshape(-1))
        places = np.arange(before[-1]) + np.repeat(starts.reshape(-1) - before[:-1], lengths.reshape(-1))
        return Ids(self.flat[places], ends(lengths if lengths.ndim == 1 else lengths.sum(axis=1)))

    def without_end(self, token: int) -> "Ids":
        """The rows without the `token`s at their ends; of a row of nothing else one is left."""
        starts, stops = self.offsets[:-1], self.offsets[1:]
        places = np.where(self.flat == token, 0, np.arange(1, len(self.flat) + 1))
        behind = np.concatenate([[0], np.maximum.accumulate(places)])[stops]  # the last other one
        return self.pieces(starts, np.maximum(behind, np.minimum(starts + 1, stops)))

    def tolist(self) -> list[list[int]]:
        """The rows as lists."""
        return [row.tolist() for row in self]


def ends(lengths: "Sequence[int] | npt.NDArray[np.integer]") -> Int64:
    """int64 [n + 1]: 0, and where rows of these lengths end that are laid end to end."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
