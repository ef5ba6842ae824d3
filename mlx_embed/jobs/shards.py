"""A job's plan, its shards, and the manifest by which a run that was ended goes on."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any, BinaryIO

from mlx_embed.records import reading
from mlx_embed.records.reading import Source
from mlx_embed.records.writing import difference

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Shard:
    """Some rows of an input, whose vectors make one file.

    Attributes:
        number: in the order of inputs and rows.
        source: what to read.
    """

    number: int
    source: Source

    @property
    def name(self) -> str:
        """Of the file."""
        return f"part-{self.number:05}.parquet"


@dataclass(frozen=True)
class Done:
    """A shard that is in its place.

    Attributes:
        shard: its number.
        file: its name.
        rows: how many vectors.
        tokens: of the texts, before truncation.
        cut: how many texts were longer than the model takes.
        bytes: of the file.
        sha256: of the file.
    """

    shard: int
    file: str
    rows: int
    tokens: int
    cut: int
    bytes: int
    sha256: str


@dataclass
class Manifest:
    """What of a job is done: the lines of OUTPUT/manifest.jsonl, which is only ever added to.

    The first line is the plan, each further one a shard in its place, in the order that they were done, and the last
    line of a job that is done says so.

    Attributes:
        folder: OUTPUT.
        done: by the shard's number.
        finished: whether it says that the job is done.
    """

    folder: Path
    done: dict[int, Done] = field(default_factory=dict)
    finished: bool = False
    _file: BinaryIO | None = None

    def add(self, done: Done) -> None:
        """Take note of a shard, lastingly."""
        self.finished = False
        self._append(asdict(done))
        self.done[done.shard] = done

    def finish(self, shards: int) -> None:
        """Say that the job is done, if it does not say so already."""
        if self.finished:
            return
        self.finished = True
        _clear(self.folder)
        totals = {name: sum(getattr(done, name) for done in self.done.values()) for name in ("rows", "tokens", "cut")}
        self._append({"finished": True, "shards": shards, **totals})

    def _append(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


@contextmanager
def opened(folder: Path, plan: Mapping[str, Any]) -> Iterator[Manifest]:
    """The manifest of a job with this plan, new or to go on with, held against other runs.

    Raises:
        ValueError: a file in the folder's place; the folder has something else in it, another plan, or another run is
            writing there.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MANIFEST
    if not path.exists() and any(not name.startswith(".") for name in os.listdir(folder)):
        raise ValueError(f"{folder} has files in it, and none is a manifest: name a new folder.")
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"Another run is writing to {folder}.") from error
        file.seek(0)
        data = file.read()
        whole = data[: data.rfind(b"\n") + 1]  # a line whose end is missing was cut off by a kill
        if len(whole) < len(data):
            file.truncate(len(whole))
        lines = _parsed(path, whole)
        manifest = Manifest(folder, _file=file)
        if not any("shard" in line for line in lines):  # nothing is done, whatever was meant to be
            file.truncate(0)
            lines = []
            for left in folder.glob("part-*.parquet"):  # in its place, and its process killed before it said so
                left.unlink()
            manifest._append({"plan": plan})
        else:
            _require(folder, lines[0].get("plan"), plan)
            manifest.done = {line["shard"]: Done(**line) for line in lines[1:] if "shard" in line}
        manifest.done = {number: done for number, done in manifest.done.items() if _is_there(folder, done)}
        manifest.finished = bool(lines) and lines[-1].get("finished") is True
        _clear(folder)
        yield manifest


def shards(sources: Sequence[Source], rows: int) -> list[Shard]:
    """Inputs cut into shards of so many lines or rows; one without any has none, and CSV is one whatever its size."""
    pieces = [(source, part) for source in sources for part in reading.parts(source, rows)]
    return [Shard(number, replace(source, part=part)) for number, (source, part) in enumerate(pieces)]


def sources(inputs: Sequence[str], kind: str | None, fields: Sequence[str], id_field: str | None) -> list[Source]:
    """What the inputs are to be read as, with the field and the type of their ids, which are one for all.

    Those without any row are left out.

    Raises:
        ValueError: see `reading.source`; standard input; some with ids, and some without, or with ids of another type.
    """
    if "-" in inputs:
        raise ValueError("A job cannot read standard input, since its rows are read by several: name files.")
    given = (reading.with_ids(reading.source(name, kind, fields, id_field)) for name in inputs)
    found = [source for source in given if source is not None]
    for first, source in pairwise(found):
        if source.id_field != first.id_field:
            raise ValueError(
                f"The ids of {first.name} are in {first.id_field!r} and those of {source.name} in "
                f"{source.id_field!r}: name one field for all by --id-field."
            )
        if source.id_type != first.id_type:
            raise ValueError(
                f"The ids of {first.name} are of type {first.id_type} and those of {source.name} of type "
                f"{source.id_type}, and one column cannot hold both: have all as text, or make a job of each."
            )
    return found


def _parsed(path: Path, data: bytes) -> list[Any]:
    try:
        lines = [json.loads(line) for line in data.splitlines()]
        if all(isinstance(line, dict) for line in lines):
            return lines
    except ValueError:
        pass
    raise ValueError(f"{path} is damaged: remove {path.parent}, and start over.")


def _require(folder: Path, before: Any, plan: Mapping[str, Any]) -> None:
    """Refuse to go on with what was begun otherwise."""
    before = before if isinstance(before, dict) else {}
    now = json.loads(json.dumps(plan))
    if (name := difference(before, now)) is not None:
        was, given = before.get(name), now.get(name)
        if name == "input" and isinstance(was, list):  # of which there may be thousands
            was, given = next(pair for pair in zip_longest(was, given) if pair[0] != pair[1])
        raise ValueError(
            f"{folder} was begun with another {name} ({was!r}, now {given!r}): give the same, or name a new folder."
        )


def _clear(folder: Path) -> None:
    """Remove what a process that was killed has left of a shard."""
    for left in folder.glob(".part-*.writing"):
        left.unlink(missing_ok=True)


def _is_there(folder: Path, done: Done) -> bool:
    try:
        return (folder / done.file).stat().st_size == done.bytes
    except OSError:
        return False
