"""Texts of a file or of standard input: one a line, or fields of JSONL, CSV or Parquet, with their ids."""

import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from mlx_embed import packed
from mlx_embed.arguments import type_name

Id: TypeAlias = str | int
# A row's place in its file, as errors name it, its first and last line, and its fields.
Row: TypeAlias = tuple[str, tuple[int, int], Mapping[str, Any]]

FORMATS = ("lines", "jsonl", "csv", "parquet")
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
# Bytes that are no text, whatever is in them; gzip is read as it is.
_PACKED = (".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z", ".tar", ".tgz")
DEFAULT_FIELD = "text"
# What is said of a file whose lines end as they did on old Macs.
_CR = "its lines end in \\r alone; let them end in \\n."
# Taken for the id where no field is named and the first row has one of these.
ID_FIELDS = ("_id", "id")


class Record(NamedTuple):
    """One text.

    Attributes:
        text: its fields, joined by a space where there are several.
        id: None where it has none.
        place: file and line, or row.
        lines: the first and last line of it, from 1; of Parquet the row.
        also: what else was asked for of its row, as `Source.also` names it; None where the row has none.
    """

    text: str
    id: Id | None
    place: str
    lines: tuple[int, int] = (0, 0)
    also: tuple[Any, ...] = ()


class Part(NamedTuple):
    """Some rows of a file, that another process than the one that counted them can read.

    Attributes:
        first: how many lines, or rows of Parquet, are in front.
        rows: how many lines or rows it has.
        offset: bytes in front, as they are unpacked; of no use in Parquet.
    """

    first: int
    rows: int
    offset: int = 0


@dataclass(frozen=True)
class Source:
    """What to read.

    Attributes:
        path: None is standard input.
        format: one of FORMATS.
        fields: those that make a text, in this order; of no use in lines.
        id_field: None takes one of ID_FIELDS, if the first row has one.
        part: None reads all of it; CSV has no parts, since a row may have any number of lines.
        also: other fields to read beside the text.
        id_type: "str" or "int", which all ids are to be; None is whatever the first is.
    """

    path: Path | None
    format: str
    fields: tuple[str, ...]
    id_field: str | None
    part: Part | None = None
    also: tuple[str, ...] = ()
    id_type: str | None = None

    @property
    def name(self) -> str:
        """As messages name it."""
        return "standard input" if self.path is None else str(self.path)

    @property
    def suffix(self) -> str:
        """Of the file's name, below the .gz of one that is packed."""
        return "" if self.path is None else packed.inner(self.path).suffix.lower()

    @property
    def columns(self) -> list[str]:
        """The fields that are read for certain."""
        return [*self.fields, *([self.id_field] if self.id_field is not None else []), *self.also]


def source(
    file: str,
    kind: str | None = None,
    fields: Sequence[str] = (),
    id_field: str | None = None,
    also: Sequence[str] = (),
) -> Source:
    """What `file` ("-" is standard input) is to be read as.

    The format is `kind`, or what the file's name says; otherwise JSONL where fields are named, and lines where not.

    Raises:
        ValueError: no such file, one that is packed otherwise than by gzip, Parquet that is packed or from standard
            input, fields of lines, or a .json of which nothing says that it has an object a line.
    """
    path = None if file == "-" else Path(os.path.expanduser(file))
    if path is not None and not path.exists():
        raise ValueError(f"There is no file {path}.")
    if path is not None and path.is_dir():
        raise ValueError(f"{path} is a folder, where a file of texts is needed.")
    named = bool(fields) or bool(also) or id_field is not None
    suffix = Source(path, "lines", (), None).suffix
    known = _SUFFIXES.get(suffix)
    if suffix in _PACKED:
        raise ValueError(f"{path} is packed: unpack it, or have each file in it packed by gzip, as NAME.jsonl.gz.")
    if suffix == ".json" and kind is None and not named:
        # As lines of text, braces and names of fields would be embedded too.
        raise ValueError(
            f"{path} may have a JSON object a line, which --format jsonl reads; --format lines takes lines as they are."
        )
    found = kind or known or ("jsonl" if named else "lines")
    if found == "parquet" and path is None:
        raise ValueError("Parquet cannot be read from standard input, since its index is at its end; name a file.")
    if found == "parquet" and path is not None and packed.is_packed(path):
        raise ValueError(f"Parquet cannot be read while it is packed, since its index is at its end; unpack {path}.")
    if found == "lines" and named:
        raise ValueError("A file of lines has no fields: leave --field and --id-field out, or give its --format.")
    named_fields = () if found == "lines" else tuple(fields) or (DEFAULT_FIELD,)
    return Source(path, found, named_fields, id_field, also=tuple(also))


def records(source: Source) -> Iterator[Record]:
    """The texts, as they are read.

    Raises:
        ValueError: what is not UTF-8, or malformed; a row without the fields, or with something else than text in them;
            an id that is neither text nor a whole number, or of another kind than the first. The place is named.
    """
    if source.format == "lines":
        for number, place, line in _lines(source):
            yield Record(line.rstrip("\n").removesuffix("\r"), None, place, (number, number))
        return
    id_field = source.id_field
    kind = source.id_type
    for number, (place, lines, row) in enumerate(_rows(source)):
        if number == 0 and id_field is None:
            id_field = _id_field(row, source.fields)
        found = None if id_field is None else _id(place, row, id_field)
        if kind is not None and type(found).__name__ != kind:
            raise ValueError(f"{place} has the id {found!r}, where those before it are of type {kind}.")
        kind = None if found is None else type(found).__name__
        also = tuple(row.get(name) for name in source.also)
        yield Record(_text(place, row, source.fields), found, place, lines, also)


def with_ids(source: Source) -> Source | None:
    """The source with the field and the type of its ids, if its first row has one; None where it has no row."""
    if source.format == "lines":
        return source if next(_lines(source), None) is not None else None
    first = next(_rows(source), None)
    if first is None:
        return None
    place, _, row = first
    field = source.id_field or _id_field(row, source.fields)
    kind = None if field is None else type(_id(place, row, field)).__name__
    return replace(source, id_field=field, id_type=kind)


def parts(source: Source, rows: int) -> list[Part | None]:
    """A file cut into parts of so many lines or rows each, the last perhaps shorter; CSV is one, which is None."""
    if source.format == "csv":
        return [None]
    assert source.path is not None
    if source.format == "parquet":
        total = count(source) or 0
        return [Part(first, min(rows, total - first)) for first in range(0, total, rows)]
    found: list[Part | None] = []
    first = lines = offset = position = 0
    with _opened(source) as file:
        for line in file:
            position += len(line)
            lines += 1
            if lines - first == rows:
                found.append(Part(first, rows, offset))
                first, offset = lines, position
    return [*found, Part(first, lines - first, offset)] if lines > first else found


def count(source: Source) -> int | None:
    """How many texts there are, where that is known without reading them one by one; about, in JSONL."""
    if source.path is None or not source.path.is_file() or source.format == "csv" or packed.is_packed(source.path):
        return None
    if source.format == "parquet":
        from mlx_embed.records import parquet

        return parquet.count(source.path)
    lines, last = 0, b"\n"
    with source.path.open("rb") as file:
        while block := file.read(2**20):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")


def _rows(source: Source) -> Iterator[Row]:
    if source.format == "parquet":
        from mlx_embed.records import parquet

        assert source.path is not None
        return parquet.rows(source.path, source.columns, ID_FIELDS if source.id_field is None else (), source.part)
    return _csv(source) if source.format == "csv" else _jsonl(source)


def _taken_for_jsonl(source: Source) -> str:
    """Why it is taken for JSONL, where its name does not say that it is."""
    if source.suffix in _SUFFIXES:
        return ""
    return " Where fields are named it is read as JSONL; lines of text have none."


def _jsonl(source: Source) -> Iterator[Row]:
    for number, place, line in _lines(source):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            ends_in_cr = str(error).startswith("Extra data") and "\r" in line.rstrip()
            reason = _CR if ends_in_cr else f"{error}.{_taken_for_jsonl(source)}"
            raise ValueError(f"{place} is not JSON: {reason}") from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{place} is {type_name(row)}, where a JSON object is needed: JSONL has one a line, and no list "
                "around them."
            )
        yield place, (number, number), row


def check_columns(name: str, there: Sequence[str], needed: Sequence[str], taken: Sequence[str] = ()) -> None:
    """Raise ValueError where the file of a name lacks a needed column, or has one of those or of `taken` twice."""
    if missing := [column for column in needed if column not in there]:
        raise ValueError(f"{name} has no column {missing[0]!r}; it has {', '.join(there) or 'none'}.")
    if twice := [column for column in (*needed, *taken) if list(there).count(column) > 1]:
        raise ValueError(f"{name} has several columns {twice[0]!r}: rename all but the one that is meant.")


def _csv(source: Source) -> Iterator[Row]:
    # The module's limit is the whole process's, and far below the length of a document.
    csv.field_size_limit(2**31 - 1)
    delimiter = "\t" if source.suffix == ".tsv" else ","
    reader = csv.reader((line for *_, line in _lines(source)), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        check_columns(source.name, header, source.columns, ID_FIELDS if source.id_field is None else ())
        above = reader.line_num
        for cells in reader:
            lines, above = (above + 1, reader.line_num), reader.line_num
            if cells:
                place = f"{source.name}:{reader.line_num}"
                if len(cells) != len(header):
                    raise ValueError(f"{place} has {len(cells)} cells, where its header has {len(header)}.")
                yield place, lines, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        reason = _CR if "new-line character" in str(error) else f"{error}."
        raise ValueError(f"{source.name}:{reader.line_num} is not CSV: {reason}") from error


def _lines(source: Source) -> Iterator[tuple[int, str, str]]:
    """Each line's number, its place, and the line with its end.

    Only \\n ends one: JSON and CSV may hold other line ends in a text.
    """
    first, many, offset = source.part or (0, None, 0)
    with _opened(source) as file:
        if offset:
            file.seek(offset)
        for number, line in enumerate(islice(file, many), start=first + 1):
            place = f"{source.name}:{number}"
            try:
                yield number, place, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{place} is not UTF-8: {error}. Save it as UTF-8.") from error


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    """The bytes of a source, unpacked; standard input is left open."""
    if source.path is not None:
        with source.path.open("rb") as file, packed.unpacked(file, source.path) as within:
            yield within
    elif sys.stdin is None:
        raise ValueError("There is no standard input to read.")
    else:
        yield sys.stdin.buffer


def _text(place: str, row: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The fields' text; one that is absent or null counts as empty beside another that is not."""
    parts = [row.get(name) for name in fields]
    if all(part is None for part in parts):
        names = " or ".join(map(repr, fields))
        if any(name in row for name in fields):
            raise ValueError(f"{place} has null as {names}, where text is needed: leave it out, or have an empty text.")
        raise ValueError(f"{place} has no {names}; it has {', '.join(map(str, row)) or 'nothing'}.")
    for name, part in zip(fields, parts, strict=True):
        if part is not None and not isinstance(part, str):
            raise ValueError(f"{place} has {type_name(part)} as {name!r}, where text is needed.")
    return " ".join(part for part in parts if part)


def _id_field(row: Mapping[str, Any], fields: Sequence[str]) -> str | None:
    return next((name for name in ID_FIELDS if row.get(name) is not None and name not in fields), None)


def _id(place: str, row: Mapping[str, Any], field: str) -> Id:
    found = row.get(field)
    if type(found) not in (str, int):
        raise ValueError(f"{place} has {found!r} as its id {field!r}, where text or a whole number is needed.")
    return found  # type: ignore[return-value]
