"""Vectors to a file that is there as a whole or not at all, and what is done of it outlives a kill.

While a run goes on, three hidden files stand beside the destination: `.NAME.partial` has the vectors as an .npy file
whose header is written last, `.NAME.partial.ids` an id a line, and `.NAME.partial.json` how much of both is certainly
there, with what the run that goes on must have in common with this one.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import path_of
from mlx_embed.records.reading import Id

SUFFIXES = (".npy", ".parquet", ".jsonl")
# Bytes of vectors that are in memory at a time where a finished file is written of them.
BLOCK = 2**24


@dataclass
class Journal:
    """What is certainly there of a file.

    Attributes:
        plan: what made it; a run that goes on must have the same.
        rows: texts.
        ids: bytes of ids.
        state: what the caller wants to know when it goes on: JSON values.
        items: of rows of several lengths, what they are made of; 0 of vectors.
    """

    plan: dict[str, Any]
    rows: int
    ids: int
    state: dict[str, Any]
    items: int = 0


def checked_target(file: str, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """The path to write to.

    Raises:
        ValueError: another suffix than those, a folder in its place, or none to put it into.
    """
    target = path_of("output", file)
    if target.suffix not in suffixes:
        raise ValueError(f"{file} ends in none of {', '.join(suffixes)}, by which the format is chosen.")
    if target.is_dir():
        raise ValueError(f"{target} is a folder; name a file.")
    if not target.parent.is_dir():
        raise ValueError(f"There is no folder {target.parent} to write {target.name} into.")
    if target.suffix == ".parquet":
        from mlx_embed.records import parquet  # noqa: F401  (so that a missing pyarrow is said now)
    return target


def ids_of(target: Path) -> Path:
    """The file of ids that goes with an .npy file: a JSON string or number a line."""
    return target.with_suffix(".ids.jsonl")


class Partial:
    """The vectors of a file so far. A context manager: what is done is kept where it ends by an error, if anything is.

    Attributes:
        target: the file to be.
        journal: what is there of it.
    """

    def __init__(self, target: Path) -> None:
        """Open or make the files beside `target`.

        Raises:
            ValueError: another run is writing the same file.
            OSError: they cannot be written.
        """
        self.target = target
        self._data = target.with_name(f".{target.name}.partial")
        self._ids = target.with_name(f".{target.name}.partial.ids")
        self._log = target.with_name(f".{target.name}.partial.json")
        self.journal = Journal({}, 0, 0, {})
        # Held to the end, and removed last, so that no other run takes up these names meanwhile.
        self._id_file = self._locked(self._ids)
        self._file = opened(self._data)

    def begin(self, plan: Mapping[str, Any], width: int, dtype: Any, resume: bool) -> None:
        """Start over, or go on with what another run left if it had the same plan: JSON values.

        Raises:
            ValueError: it had another, or what it left is damaged.
        """
        self._width, self._dtype = width, np.dtype(dtype)
        self._header = len(header((0, width), self._dtype))
        self._go_on(plan, resume)

    def _go_on(self, plan: Mapping[str, Any], resume: bool) -> None:
        found = self._read() if resume else None
        self.journal = found or Journal(dict(plan), 0, 0, {})
        before = self.journal.plan
        if (key := difference(before, plan)) is not None:
            raise ValueError(
                f"{self.target} was begun with another {key} ({before.get(key)!r}, now {plan.get(key)!r}): give the "
                "same, or start over without --resume."
            )
        self._log.unlink(missing_ok=True) if found is None else None
        for file, size in self._kept():
            if found is not None and os.fstat(file.fileno()).st_size < size:
                raise ValueError(f"What is left of {self.target} is damaged; start over without --resume.")
            file.truncate(size)
            file.seek(size)

    def append(self, rows: Any, ids: Iterable[Id | None], state: Mapping[str, Any]) -> None:
        """Add vectors [n, width] and their ids, of which all are None or none is; `state` is remembered with them."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self._keep(len(rows), ids, state)

    def _keep(self, rows: int, ids: Iterable[Id | None], state: Mapping[str, Any], items: int = 0) -> None:
        """Make sure of what was just written of so many rows."""
        self._id_file.write(b"".join(json.dumps(i).encode() + b"\n" for i in ids if i is not None))
        for file, _ in self._kept():
            file.flush()
            os.fsync(file.fileno())
        before, size = self.journal, self._id_file.tell()
        self.journal = Journal(before.plan, before.rows + rows, size, dict(state), before.items + items)
        with replacing(self._log) as file:
            file.write(json.dumps(vars(self.journal)).encode())

    def finish(self) -> list[Path]:
        """Put the file in its place, and with an .npy file the one of ids, if there are any; the files written."""
        written = [self.target]
        self._file.seek(0)
        self._file.write(header((self.journal.rows, self._width), self._dtype))
        self._file.flush()
        os.fsync(self._file.fileno())
        if self.target.suffix == ".npy":
            beside = ids_of(self.target)
            if self.journal.ids:
                with replacing(beside) as file, self._ids.open("rb") as ids:
                    while block := ids.read(2**20):
                        file.write(block)
                written.append(beside)
            else:
                beside.unlink(missing_ok=True)  # an earlier run's would be taken for this one's
            os.replace(self._data, self.target)
        elif self.target.suffix == ".jsonl":
            with replacing(self.target) as file:
                for line in lines(self._blocks(), self._listed_ids()):
                    file.write(line)
        else:
            from mlx_embed.records import parquet

            with replacing(self.target) as file:
                parquet.write(Path(file.name), self._blocks(), self._listed_ids(), self._width, self._dtype)
        self.discard()
        return written

    def discard(self) -> None:
        """Remove the files beside the target."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _paths(self) -> tuple[Path, ...]:
        """The files beside the target: the journal first, for what it does not name does not count, the locked last."""
        return self._log, self._data, self._ids

    def __enter__(self) -> "Partial":
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None and not self._log.exists():
            self.discard()
        self._file.close()
        self._id_file.close()

    def _locked(self, path: Path) -> BinaryIO:
        while True:
            file = opened(path)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.close()
                raise ValueError(f"Another run is writing {self.target}.") from error
            # A run that has ended since this file was opened has removed it, and a third may have made a new one.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            file.close()

    def _read(self) -> Journal | None:
        try:
            return Journal(**json.loads(self._log.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self._log} is damaged; start over without --resume.") from error

    def _kept(self) -> list[tuple[BinaryIO, int]]:
        """The files, and of each how many bytes are certainly there."""
        return [(self._file, self._end(self.journal.rows)), (self._id_file, self.journal.ids)]

    def _end(self, rows: int) -> int:
        return self._header + rows * self._width * self._dtype.itemsize

    def _blocks(self) -> Iterator[npt.NDArray[Any]]:
        """The vectors, a few megabytes at a time."""
        step = max(1, BLOCK // (self._width * self._dtype.itemsize))
        for start in range(0, self.journal.rows, step):
            count = min(step, self.journal.rows - start)
            self._file.seek(self._end(start))
            data = self._file.read(count * self._width * self._dtype.itemsize)
            yield np.frombuffer(data, self._dtype).reshape(count, self._width)

    def _listed_ids(self) -> Iterator[Id] | None:
        return _ids_in(self._ids) if self.journal.ids else None


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first key at which a run that goes on has another value than the one that began; None where there is none."""
    return next((key for key in [*now, *before] if before.get(key) != now.get(key)), None)


def opened(path: Path) -> BinaryIO:
    """To read and write, with what is in it; made where it is not there."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")


def lines(blocks: Iterable[npt.NDArray[Any]], ids: Iterator[Id] | None) -> Iterator[bytes]:
    """JSONL of vectors: {"id": ..., "vector": [...]}, the shortest digits that give each number back."""
    for block in blocks:
        for row in block.astype("U"):
            name = "" if ids is None else f'"id": {json.dumps(next(ids))}, '
            yield f'{{{name}"vector": [{", ".join(row)}]}}\n'.encode()


def _ids_in(path: Path) -> Iterator[Id]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """An .npy header, of one length whatever the number of rows: numpy leaves room for it to grow."""
    file = BytesIO()
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": description, "fortran_order": False, "shape": shape})
    return file.getvalue()


@contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """A file to write that takes the place of `path` once it is whole."""
    other = path.with_name(f".{path.name}.writing")
    try:
        with other.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(other, path)
    finally:
        other.unlink(missing_ok=True)
