"""What was committed at one moment: the segments, mapped, and which of their rows count."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.errors import StoreCorruptError
from mlx_embed.index import blocks
from mlx_embed.index.blocks import Block, Numbers
from mlx_embed.index.database import DATABASE
from mlx_embed.index.segments import BLOCK_ROWS, EXACT, Column, Mapped, check

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Segment:
    """A segment at one moment.

    Attributes:
        number: its own.
        columns: the rows of each.
        numbers: int64 [n], the texts' numbers, which rise.
        dead: a bit a row, the least significant first: those that are gone.
        blank: likewise, those of texts without a direction.
        sums: the checksums of each block, one a column.
        error: how far, at most, a scanned row is from the exact one.
        norm: the length of the longest row.
    """

    number: int
    columns: Mapping[str, Mapped]
    numbers: Numbers
    dead: Mask
    blank: Mask
    sums: Sequence[Sequence[int]]
    error: float
    norm: float

    @property
    def exact(self) -> npt.NDArray[np.float32]:
        """The float32 rows [n, D]; call `segments.check` for those that are read."""
        return self.columns[EXACT].rows

    def bits(self, places: npt.NDArray[np.intp]) -> Mask:
        """A mask that has these rows."""
        wanted = np.zeros(len(self.numbers), dtype=bool)
        wanted[places] = True
        return np.packbits(wanted, bitorder="little")

    def places(self, bits: Mask) -> npt.NDArray[np.intp]:
        """The rows that a mask has."""
        return np.flatnonzero(np.unpackbits(bits, count=len(self.numbers), bitorder="little"))


class View:
    """What was committed at one moment.

    Attributes:
        generation: how many commits there were.
        segments: in the order of their texts' numbers.
    """

    def __init__(self, generation: int, segments: Sequence[Segment], columns: Sequence[Column]) -> None:
        self.generation = generation
        self.segments = segments
        self._columns = columns

    @classmethod
    def load(
        cls,
        connection: Connection,
        folder: Path,
        columns: Sequence[Column],
        generation: int,
        earlier: "View | None" = None,
    ) -> "View":
        """Read the blocks and map the segments; `earlier` has what need not be mapped or checked again.

        Raises:
            StoreCorruptError: a block or a file that is not as it was written.
            FileNotFoundError: a segment is gone: whoever compacted the index has removed it.
        """
        database = str(folder / DATABASE)
        found: dict[int, list[tuple[Any, ...]]] = {}
        for record in connection.execute(blocks.SELECT):
            fields = blocks.read(record, len(columns), database)
            found.setdefault(fields[0], []).append(fields)
        known = {segment.number: segment for segment in earlier.segments} if earlier else {}
        segments = []
        for number, records in found.items():
            rows = [fields[2] for fields in records]
            if [fields[1] for fields in records] != list(range(len(records))) or set(rows[:-1]) - {BLOCK_ROWS}:
                raise StoreCorruptError(f"{database} is damaged: segment {number} lacks blocks. Restore a copy.")
            count = sum(rows)
            sums = [struct.unpack(f"<{len(columns)}I", fields[3]) for fields in records]
            bounds = np.array([struct.unpack("<dd", fields[4]) for fields in records])
            error, norm = bounds.max(axis=0)
            cut = -(-count // 8)
            before = known.get(number)
            mapped = {}
            for i, column in enumerate(columns):
                here = [each[i] for each in sums]
                if before is not None and len(before.numbers) == count and [s[i] for s in before.sums] == here:
                    mapped[column.name] = before.columns[column.name]
                    continue
                mapped[column.name] = Mapped(column.path(folder, number), column, here, count)
                if before is not None:
                    mapped[column.name].take_over(before.columns[column.name])
            segments.append(
                Segment(
                    number,
                    mapped,
                    np.frombuffer(b"".join(fields[7] for fields in records), dtype="<i8"),
                    np.frombuffer(b"".join(fields[5] for fields in records), dtype=np.uint8)[:cut],
                    np.frombuffer(b"".join(fields[6] for fields in records), dtype=np.uint8)[:cut],
                    sums,
                    float(error),
                    float(norm),
                )
            )
        return cls(generation, segments, columns)

    def __len__(self) -> int:
        """How many texts there are."""
        return sum(
            len(segment.numbers) - int(np.unpackbits(segment.dead, count=len(segment.numbers), bitorder="little").sum())
            for segment in self.segments
        )

    def located(self, numbers: Numbers) -> Iterator[tuple[Segment, npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        """Where texts are: of each segment that has some, itself, which of `numbers` these are, and their rows."""
        if not self.segments:
            return
        first = np.array([segment.numbers[0] for segment in self.segments])
        owner = np.searchsorted(first, numbers, side="right") - 1
        for i in np.unique(owner[owner >= 0]):
            segment, which = self.segments[i], np.flatnonzero(owner == i)
            places = np.searchsorted(segment.numbers, numbers[which])
            there = places < len(segment.numbers)
            there[there] = segment.numbers[places[there]] == numbers[which][there]
            yield segment, which[there], places[there]

    def vectors(self, numbers: Numbers) -> npt.NDArray[np.float32]:
        """The float32 vectors of texts, checked: [n, D].

        Raises:
            StoreCorruptError: damaged rows; a text that has none.
        """
        found = np.zeros((len(numbers), self._columns[0].width), dtype=np.float32)
        count = 0
        for segment, which, places in self.located(numbers):
            check([segment.columns[EXACT]], np.unique(places // BLOCK_ROWS))
            found[which] = segment.exact[places]
            count += len(which)
        if count != len(numbers):
            raise StoreCorruptError("The database names texts that have no vector; restore the index from a copy.")
        return found

    def block(self, segment: Segment, number: int) -> Block:
        """A copy of a block, to be changed."""
        start = number * BLOCK_ROWS
        rows = slice(start, start + BLOCK_ROWS)
        bounds = slice(start // 8, start // 8 + BLOCK_ROWS // 8)

        def whole(bits: Mask) -> npt.NDArray[np.bool_]:
            part = np.unpackbits(bits[bounds], bitorder="little").astype(bool)
            return np.concatenate([part, np.zeros(BLOCK_ROWS - len(part), dtype=bool)])

        return Block(
            segment.number,
            number,
            list(segment.sums[number]),
            segment.numbers[rows].copy(),
            whole(segment.dead),
            whole(segment.blank),
            segment.error,
            segment.norm,
        )
