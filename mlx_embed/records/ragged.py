"""Rows of several lengths to a file: weights of tokens, or a vector a token; as `writing`, which outlives a kill.

Beside the hidden files of `writing`, `.NAME.partial.lengths` has how long each row is.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mlx_embed.records.reading import Id
from mlx_embed.records.writing import BLOCK, Partial, header, opened, replacing

SUFFIXES = (".npz", ".parquet", ".jsonl")
# A weight: the place in the vocabulary, and what is there.
WEIGHT = np.dtype([("index", "<i4"), ("value", "<f4")])
# Rows of which the lengths, or the ids, are in memory at a time.
_ROWS = 2**16

Chunks: TypeAlias = Iterable[npt.NDArray[Any]]


class Rows(NamedTuple):
    """Some rows, end to end.

    Attributes:
        lengths: int32 [n].
        items: WEIGHT [K], or float32 [K, D].
    """

    lengths: npt.NDArray[np.int32]
    items: npt.NDArray[Any]

    def parts(self) -> list[npt.NDArray[Any]]:
        """The rows one by one."""
        return np.split(self.items, np.cumsum(self.lengths)[:-1]) if len(self.lengths) else []


@dataclass(frozen=True)
class Layout:
    """What rows are made of: weights where `width` is 0, else vectors of that length.

    Attributes:
        width: of a vector.
        dimension: of the vocabulary that weights are over, or a vector's.
    """

    width: int
    dimension: int

    @property
    def weights(self) -> bool:
        """Whether it is weights."""
        return not self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of an item, or of a number of it."""
        return WEIGHT if self.weights else np.dtype("<f4")

    def shaped(self, data: bytes) -> npt.NDArray[Any]:
        """Items of the bytes that they were kept as."""
        flat = np.frombuffer(data, self.dtype)
        return flat if self.weights else flat.reshape(-1, self.width)

    def lines(self, rows: Rows, ids: Iterator[Id] | None) -> Iterator[bytes]:
        """JSONL: {"id", "indices", "values"}, or {"id", "vectors"}; the shortest digits that give a number back."""
        for own in rows.parts():
            name = "" if ids is None else f'"id": {json.dumps(next(ids))}, '
            if self.weights:
                indices, values = own["index"].tolist(), ", ".join(own["value"].astype("U"))
                yield f'{{{name}"indices": {indices}, "values": [{values}]}}\n'.encode()
            else:
                vectors = ", ".join(f"[{', '.join(vector)}]" for vector in own.astype("U"))
                yield f'{{{name}"vectors": [{vectors}]}}\n'.encode()


class RaggedPartial(Partial):
    """The rows of a file so far; see `Partial`.

    Attributes:
        layout: what the rows are made of; known once a model is loaded, and before `begin`.
    """

    layout: Layout

    def __init__(self, target: Path) -> None:
        """Open or make the files beside `target`; see `Partial`."""
        super().__init__(target)
        self._lengths = target.with_name(f".{target.name}.partial.lengths")

    def begin(self, plan: Mapping[str, Any], width: int, dtype: Any, resume: bool) -> None:
        """Start over, or go on with what another run left; see `Partial`. The layout has width and dtype."""
        self._header = 0
        self._length_file = opened(self._lengths)
        self._go_on(plan, resume)

    def append(self, rows: Rows, ids: Iterable[Id | None], state: Mapping[str, Any]) -> None:
        """Add rows and their ids, of which all are None or none is; `state` is remembered with them."""
        self._file.write(np.ascontiguousarray(rows.items, self.layout.dtype).tobytes())
        self._length_file.write(rows.lengths.astype("<i4").tobytes())
        self._keep(len(rows.lengths), ids, state, len(rows.items))

    def finish(self) -> list[Path]:
        """Put the file in its place; the files written."""
        with replacing(self.target) as file:
            if self.target.suffix == ".npz":
                self._write_npz(file)
            elif self.target.suffix == ".jsonl":
                ids = self._listed_ids()
                for rows in self._rows():
                    file.writelines(self.layout.lines(rows, ids))
            else:
                from mlx_embed.records import parquet

                parquet.write_ragged(Path(file.name), self._rows(), self._listed_ids(), self.layout)
        self.discard()
        return [self.target]

    def _kept(self) -> list[tuple[BinaryIO, int]]:
        data = self.journal.items * max(self.layout.width, 1) * self.layout.dtype.itemsize
        return [(self._file, data), (self._length_file, 4 * self.journal.rows), (self._id_file, self.journal.ids)]

    def _paths(self) -> tuple[Path, ...]:
        journal, *rest = super()._paths()
        return journal, self._lengths, *rest

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if hasattr(self, "_length_file"):
            self._length_file.close()

    def _rows(self) -> Iterator[Rows]:
        """All rows, a few megabytes at a time, a row at least."""
        size = max(self.layout.width, 1) * self.layout.dtype.itemsize
        self._file.seek(0)
        for lengths in self._read_lengths():
            start = 0
            while start < len(lengths):
                fit = int(np.searchsorted(np.cumsum(lengths[start:], dtype=np.int64), BLOCK // size, side="right"))
                own = lengths[start : start + max(fit, 1)]
                yield Rows(own, self.layout.shaped(self._file.read(int(own.sum(dtype=np.int64)) * size)))
                start += len(own)

    def _read_lengths(self) -> Iterator[npt.NDArray[np.int32]]:
        self._length_file.seek(0)
        while data := self._length_file.read(4 * _ROWS):
            yield np.frombuffer(data, "<i4")

    def _write_npz(self, file: BinaryIO) -> None:
        """As scipy.sparse.load_npz reads it, or "vectors" and "offsets"; "ids" where there are."""
        journal, layout = self.journal, self.layout
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

            def add(name: str, shape: tuple[int, ...], dtype: Any, chunks: Chunks) -> None:
                # Without a time, so that the same rows are the same file.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    member.write(header(shape, np.dtype(dtype)))
                    for chunk in chunks:
                        member.write(np.ascontiguousarray(chunk, dtype).tobytes())

            ends = (journal.rows + 1,)
            if layout.weights:
                add("format", (), "S3", [np.array(b"csr")])
                add("shape", (2,), "<i8", [np.array([journal.rows, layout.dimension])])
                add("indptr", ends, "<i8", self._ends())
                add("indices", (journal.items,), "<i4", (rows.items["index"] for rows in self._rows()))
                add("data", (journal.items,), "<f4", (rows.items["value"] for rows in self._rows()))
            else:
                add("offsets", ends, "<i8", self._ends())
                add("vectors", (journal.items, layout.width), "<f4", (rows.items for rows in self._rows()))
            if journal.ids:
                dtype = self._dtype_of_ids()
                add("ids", (journal.rows,), dtype, self._id_chunks(dtype))

    def _ends(self) -> Iterator[npt.NDArray[np.int64]]:
        """Where each row begins, and where the last ends."""
        last = np.zeros(1, np.int64)
        yield last
        for lengths in self._read_lengths():
            found = last + np.cumsum(lengths, dtype=np.int64)
            last = found[-1:]
            yield found

    def _dtype_of_ids(self) -> np.dtype[Any]:
        """int64, or a string as long as the longest."""
        longest, whole = 1, True
        for name in self._listed_ids() or ():
            longest = max(longest, len(str(name)))
            whole = whole and isinstance(name, int) and -(2**63) <= name < 2**63
        return np.dtype(np.int64) if whole else np.dtype(f"<U{longest}")

    def _id_chunks(self, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
        names = self._listed_ids() or iter(())
        listed: list[Id] = []
        for name in names:
            listed.append(name if dtype.kind == "i" else str(name))
            if len(listed) == _ROWS:
                yield np.array(listed, dtype)
                listed = []
        if listed:
            yield np.array(listed, dtype)
