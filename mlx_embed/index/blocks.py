"""What the database knows of 256 rows of a segment: whose they are, which are gone, and their checksums."""

import struct
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from mlx_embed.errors import StoreCorruptError
from mlx_embed.index.segments import BLOCK_ROWS

Bits = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

SELECT = 'SELECT segment, number, rows, sums, bounds, dead, blank, numbers, "check" FROM block ORDER BY segment, number'
INSERT = "INSERT OR REPLACE INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


def _none() -> Bits:
    return np.zeros(BLOCK_ROWS, dtype=bool)


@dataclass
class Block:
    """A part of a segment.

    Attributes:
        segment: its number.
        number: of the block in it, from 0.
        sums: a checksum of the rows of each column.
        numbers: int64 [rows], the texts' numbers, which rise.
        dead: bool [256], the rows that are gone.
        blank: bool [256], the rows of texts without a direction, which vectors do not find.
        error: how far, at most, a scanned row is from the exact one.
        norm: the length of the longest row.
    """

    segment: int
    number: int
    sums: list[int]
    numbers: Numbers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    dead: Bits = field(default_factory=_none)
    blank: Bits = field(default_factory=_none)
    error: float = 0.0
    norm: float = 0.0

    @property
    def rows(self) -> int:
        """How many there are, with those that are gone."""
        return len(self.numbers)

    def record(self) -> tuple[Any, ...]:
        """The row of the table."""
        fields = (
            self.segment,
            self.number,
            self.rows,
            struct.pack(f"<{len(self.sums)}I", *self.sums),
            struct.pack("<dd", self.error, self.norm),
            np.packbits(self.dead, bitorder="little").tobytes(),
            np.packbits(self.blank, bitorder="little").tobytes(),
            self.numbers.astype("<i8").tobytes(),
        )
        return (*fields, _check(fields))


def read(record: tuple[Any, ...], columns: int, database: str) -> tuple[Any, ...]:
    """A row of the table, if it is as it was written.

    Raises:
        StoreCorruptError: it is not, and `database` is to be named.
    """
    *fields, check = record
    segment, number, rows, sums, bounds, dead, blank, numbers = fields
    try:
        sound = (
            _check(tuple(fields)) == check
            and (len(sums), len(bounds)) == (4 * columns, 16)
            and len(dead) == len(blank) == BLOCK_ROWS // 8
            and len(numbers) == 8 * rows
        )
    except (TypeError, struct.error):
        sound = False
    if not sound:
        raise StoreCorruptError(
            f"{database} is damaged: block {number} of segment {segment} is not as it was written. Restore it from a "
            "copy, or index the sources again."
        )
    return tuple(fields)


def _check(fields: tuple[Any, ...]) -> int:
    segment, number, rows, *blobs = fields
    return crc32(b"".join(blobs), crc32(struct.pack("<qqq", segment, number, rows)))
