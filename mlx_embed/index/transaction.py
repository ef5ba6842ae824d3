"""Transaction: what one commit changes, in the segments first and then in the database."""

from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection
from zlib import crc32

import numpy as np

from mlx_embed.index import blocks, database, rows
from mlx_embed.index.blocks import Block, Numbers
from mlx_embed.index.rows import Entry
from mlx_embed.index.segments import BLOCK_ROWS, SEGMENT_ROWS, Appender, Column, Float32, encoded, lengths_of, packed
from mlx_embed.index.view import Segment, View


class Transaction:
    """One commit in the making.

    Attributes:
        connection: inside a transaction of the database.
        view: what was committed before.
    """

    def __init__(
        self, connection: Connection, folder: Path, columns: Sequence[Column], view: View, row_dtype: str
    ) -> None:
        self.connection = connection
        self.view = view
        self._columns = columns
        self._row_dtype = row_dtype
        self._appender = Appender(folder, columns)
        self._blocks: dict[tuple[int, int], Block] = {}
        # Neither numbers of texts nor of segments are ever given again, so that no reader takes one for another.
        self._next = database.counted(connection, folder, "numbers") + 1
        self._last = database.counted(connection, folder, "segments")
        if view.segments:
            self._segment, self._place = view.segments[-1].number, len(view.segments[-1].numbers)
        else:
            self._segment, self._place = self._last, SEGMENT_ROWS

    def put(self, entries: Sequence[Entry], vectors: Float32) -> None:
        """Add texts and their vectors [n, D]; of a zero vector the text is found by its words alone."""
        numbers = self.append(vectors)
        rows.insert(self.connection, numbers.tolist(), entries)

    def append(self, vectors: Float32, numbers: Numbers | None = None) -> Numbers:
        """Write vectors [n, D] behind the others, for new numbers or for some that are larger than those before."""
        if numbers is None:
            numbers = np.arange(self._next, self._next + len(vectors), dtype=np.int64)
            self._next += len(vectors)
        done = 0
        while done < len(vectors):
            if self._place == SEGMENT_ROWS:
                self.new_segment()
            count = min(len(vectors) - done, BLOCK_ROWS - self._place % BLOCK_ROWS)
            part = slice(done, done + count)
            self._append_to_block(vectors[part], numbers[part])
            done += count
        return numbers

    def new_segment(self) -> None:
        """Go on in a segment of its own."""
        self._segment, self._place = self._last + 1, 0
        self._last = self._segment

    def _append_to_block(self, vectors: Float32, numbers: Numbers) -> None:
        block = self._block(self._segment, self._place // BLOCK_ROWS)
        data, errors = encoded(vectors, self._row_dtype)
        lengths = lengths_of(vectors)
        self._appender.write(self._segment, self._place, data)
        for i, column in enumerate(self._columns):
            block.sums[i] = crc32(packed(data[column.name], column), block.sums[i])
        first = block.rows
        block.blank[first : first + len(vectors)] = lengths == 0
        block.numbers = np.concatenate([block.numbers, numbers])
        block.error = max(block.error, float(errors.max()))
        block.norm = max(block.norm, float(lengths.max()))
        self._place += len(vectors)

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove texts that were committed before."""
        rows.delete(self.connection, numbers)
        for segment, _, places in self.view.located(np.array(sorted(numbers), dtype=np.int64)):
            for number in np.unique(places // BLOCK_ROWS):
                block = self._block(segment.number, int(number), segment)
                block.dead[places[places // BLOCK_ROWS == number] % BLOCK_ROWS] = True

    def _block(self, segment: int, number: int, known: Segment | None = None) -> Block:
        key = (segment, number)
        if key not in self._blocks:
            if known is None:
                known = next((one for one in self.view.segments if one.number == segment), None)
            there = known is not None and number * BLOCK_ROWS < len(known.numbers)
            if known is not None and there:
                self._blocks[key] = self.view.block(known, number)
            else:
                self._blocks[key] = Block(segment, number, [0] * len(self._columns))
        return self._blocks[key]

    def forget(self, segments: Sequence[int]) -> None:
        """Name these segments no more: their rows were copied."""
        self.connection.executemany("DELETE FROM block WHERE segment = ?", [(number,) for number in segments])

    def finish(self) -> None:
        """Have the rows on the disk, and then name them. The commit itself is the caller's."""
        self._appender.sync()
        self.connection.executemany(blocks.INSERT, [block.record() for block in self._blocks.values()])
        counters = {"generation": self.view.generation + 1, "numbers": self._next - 1, "segments": self._last}
        self.connection.executemany(
            "UPDATE meta SET value = ? WHERE key = ?", [(str(value), key) for key, value in counters.items()]
        )

    def close(self) -> None:
        """Let go of the files."""
        self._appender.close()
