"""The matrices of an index: files that only grow, of which the database says how many rows count.

A segment is a file of float32 rows, and where the index scans rows of another type, one of these beside it. A file may
be longer than the database says: what is behind was being written when a process ended, and is written over.
"""

import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlx_embed.errors import StoreCorruptError
from mlx_embed.index.checksums import checksums
from mlx_embed.index.database import flush, synced

Array: TypeAlias = npt.NDArray[Any]
Float32: TypeAlias = npt.NDArray[np.float32]

FOLDER = "segments"
SEGMENT_ROWS = 65_536
BLOCK_ROWS = 256
EXACT = "float32"
SCALE = "scale"
_LARGEST_HALF = np.finfo(np.float16).max


@dataclass(frozen=True)
class Column:
    """What a segment has of each row, in a file of its own.

    Attributes:
        name: of the column, and the ending of its files.
        dtype: of a value.
        width: values a row.
    """

    name: str
    dtype: np.dtype[Any]
    width: int

    @property
    def row_bytes(self) -> int:
        """The size of a row."""
        return int(self.dtype.itemsize * self.width)

    def path(self, folder: Path, segment: int) -> Path:
        """The file of a segment."""
        return folder / FOLDER / f"{segment:06d}.{self.name}"


def columns(dimension: int, row_dtype: str) -> tuple[Column, ...]:
    """What segments have of vectors of this dimension that are scanned in this dtype."""
    exact = Column(EXACT, np.dtype("<f4"), dimension)
    if row_dtype == "float16":
        return exact, Column("float16", np.dtype("<f2"), dimension)
    if row_dtype == "int8":
        return exact, Column("int8", np.dtype("i1"), dimension), Column(SCALE, np.dtype("<f4"), 1)
    return (exact,)


def encoded(vectors: Float32, row_dtype: str) -> tuple[dict[str, Array], npt.NDArray[np.float64]]:
    """The rows of each column for vectors [n, D], and how far, as a length [n], the scanned ones are from them."""
    if row_dtype == "float16":
        # A value that float16 does not reach is its largest: how far that is from the exact one is known, as of others.
        halves = vectors.clip(-_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)
        return {EXACT: vectors, "float16": halves}, lengths_of(vectors - halves.astype(np.float32))
    if row_dtype == "int8":
        scale = np.abs(vectors).max(axis=1, keepdims=True) / np.float32(127)
        steps = np.rint(vectors / np.where(scale > 0, scale, np.float32(1))).astype(np.int8)
        return {EXACT: vectors, "int8": steps, SCALE: scale}, lengths_of(vectors - steps * scale)
    return {EXACT: vectors}, np.zeros(len(vectors))


def lengths_of(vectors: Array) -> npt.NDArray[np.float64]:
    """[n] of vectors [n, D]."""
    return np.asarray(np.linalg.norm(vectors.astype(np.float64), axis=1))


def packed(rows: Array, column: Column) -> Any:
    """Rows as bytes lie in a file: a buffer."""
    return np.ascontiguousarray(rows, column.dtype)


class Appender:
    """Writes rows behind those that count."""

    def __init__(self, folder: Path, parts: Sequence[Column]) -> None:
        self._folder = folder
        self._columns = parts
        self._open: dict[Path, int] = {}
        self._new = False

    def write(self, segment: int, place: int, rows: Mapping[str, Array]) -> None:
        """Write rows of every column from row `place` on."""
        for column in self._columns:
            path = column.path(self._folder, segment)
            if path not in self._open:
                how = os.O_WRONLY | os.O_CLOEXEC
                if place == 0:
                    path.unlink(missing_ok=True)  # left by a process that ended before its commit
                    how |= os.O_CREAT | os.O_EXCL
                    self._new = True
                self._open[path] = os.open(path, how, 0o644)
            data = memoryview(packed(rows[column.name], column)).cast("B")
            at = place * column.row_bytes
            while data:
                written = os.pwrite(self._open[path], data, at)
                data, at = data[written:], at + written

    def sync(self) -> None:
        """Have all of it on the disk, names of new files included."""
        for file in self._open.values():
            flush(file)
        if self._new:
            synced(self._folder / FOLDER)
            self._new = False

    def close(self) -> None:
        """Let go of the files."""
        for file in self._open.values():
            os.close(file)
        self._open.clear()


class Mapped:
    """The rows of one column of one segment as they lie on the disk, checked before they are used.

    Attributes:
        rows: [n, width], read-only.
    """

    def __init__(self, path: Path, column: Column, sums: Sequence[int], count: int) -> None:
        """Map the first `count` rows; `sums` are the checksums of their blocks.

        Raises:
            FileNotFoundError: the file is gone.
            StoreCorruptError: it is shorter than that.
        """
        self._path = path
        self._sums = sums
        self._good = np.zeros(len(sums), dtype=bool)
        size = count * column.row_bytes
        with open(path, "rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found < size:
                raise StoreCorruptError(
                    f"{path} has {found} bytes, where the index says at least {size}. Restore it from a copy, or "
                    "index the sources again."
                )
            self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        self.rows: Array = np.frombuffer(self._map, dtype=column.dtype).reshape(count, column.width)

    def unchecked(self, blocks: npt.NDArray[np.intp] | None = None) -> list[int]:
        """The numbers of the blocks, of these or of all, that nobody has compared with their checksums yet."""
        if blocks is None:
            return np.flatnonzero(~self._good).tolist()
        return [int(block) for block in blocks if not self._good[block]]

    def block(self, number: int) -> Any:
        """The rows of a block."""
        return self.rows[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS]

    def compare(self, number: int, checksum: int) -> None:
        """Take note that a block is as it was written, if it has the checksum that it should have.

        Raises:
            StoreCorruptError: it has another.
        """
        if checksum != self._sums[number]:
            start = number * BLOCK_ROWS
            raise StoreCorruptError(
                f"{self._path} is damaged: rows {start} to {min(start + BLOCK_ROWS, len(self.rows)) - 1} are not as "
                "they were written. Restore the file from a copy, or index the sources again."
            )
        self._good[number] = True

    def take_over(self, other: "Mapped") -> None:
        """Trust what an earlier map of the same file has checked."""
        shared = min(len(self._good), len(other._good))
        same = np.array(self._sums[:shared]) == np.array(other._sums[:shared])
        self._good[:shared] = other._good[:shared] & same


def check(columns: Iterable[Mapped], blocks: npt.NDArray[np.intp] | None = None) -> None:
    """Compare blocks of each, by number, with their checksums, each once; None: all.

    Raises:
        StoreCorruptError: one differs.
    """
    left = [(column, number) for column in columns for number in column.unchecked(blocks)]
    found = checksums([column.block(number) for column, number in left])
    for (column, number), checksum in zip(left, found, strict=True):
        column.compare(number, checksum)
