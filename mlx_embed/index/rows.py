"""The rows of the database for texts and files: how they are written, read, and known to be as they were written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from sqlite3 import Connection
from typing import Any
from zlib import crc32

from mlx_embed.arguments import plain_string, require_list, require_string, type_name, whole_number
from mlx_embed.errors import StoreCorruptError
from mlx_embed.index.entries import Chunk, FileStat, Hit

# Names in one statement: SQLite's least limit is 999.
_AT_ONCE = 900
# What says where a chunk stands.
PLACES = ("ordinal", "byte_start", "byte_end", "line_start", "line_end")
# Mappings and lists within metadata. Python reads JSON to a depth that depends on its version and on its caller's.
MOST_NESTED = 100

_INSERT = "INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_COLUMNS = (
    'number, id, path, ordinal, byte_start, byte_end, line_start, line_end, heading, metadata, digest, "check", text'
)
_WORDS = "INSERT INTO words(rowid, text) VALUES (?, ?)"
# FTS5 has no text of its own here: what is removed has to be told.
_NO_WORDS = "INSERT INTO words(words, rowid, text) VALUES ('delete', ?, ?)"


@dataclass(frozen=True)
class Entry:
    """A text as it is stored.

    Attributes:
        id: its own.
        chunk: what there is of it; path "" of what is of no file.
        metadata: its metadata, in JSON.
    """

    id: str
    chunk: Chunk
    metadata: str

    @property
    def digest(self) -> bytes:
        """By which an equal text is found."""
        return digest(self.chunk.text)


def digest(text: str) -> bytes:
    """A hash of a text, 16 bytes."""
    return blake2b(text.encode(), digest_size=16).digest()


def entry(name: str, chunk: Chunk) -> Entry:
    """A text to be stored, of Python's own strings and numbers: what is read back is checked by their reprs.

    Raises:
        TypeError: a text, an id, a path or a heading that is no string; a place that is no whole number; metadata that
            JSON does not bring back.
        ValueError: a text or an id that UTF-8 cannot hold, such as half a surrogate pair; an empty id; a place that no
            file has.
    """
    id, path, text = _string("id", name, name), _string("path", name, chunk.path), _string("text", name, chunk.text)
    if not id:
        raise ValueError("An id is empty; every text needs one.")
    if not isinstance(chunk.metadata, Mapping):
        raise TypeError(f"The metadata of {name!r:.80} is {type_name(chunk.metadata)}; a mapping is needed.")
    _check_nested(name, chunk.metadata, MOST_NESTED)
    try:
        metadata = json.dumps(dict(chunk.metadata), ensure_ascii=False, sort_keys=True, allow_nan=False)
        metadata.encode()
    except (TypeError, ValueError) as error:
        raise TypeError(f"The metadata of {name!r:.80} cannot be written as JSON: {error}.") from error
    places: dict[str, Any] = {key: whole_number(f"The {key} of {name!r:.80}", getattr(chunk, key)) for key in PLACES}
    if odd := [key for key, place in places.items() if not 0 <= place < 2**63]:
        raise ValueError(f"The {odd[0]} of {name!r:.80} is {places[odd[0]]}, which is no place in a file.")
    require_list(f"The heading of {name!r:.80}", chunk.heading)
    heading = tuple(_string("heading", name, part) for part in chunk.heading)
    return Entry(id, replace(chunk, text=text, path=path, heading=heading, **places), metadata)


def state(path: str, stat: FileStat) -> tuple[str, FileStat]:
    """A file and its state to be stored, as an `entry` is.

    Raises:
        TypeError: a path or a hash that is no string, a size or a time that is no whole number.
        ValueError: a path or a hash that UTF-8 cannot hold.
    """
    size, mtime_ns = (whole_number(f"The {key} of {path!r:.80}", getattr(stat, key)) for key in ("size", "mtime_ns"))
    return _string("path", path, path), FileStat(size, mtime_ns, _string("sha256", path, stat.sha256))


def _string(what: str, of: str, text: str) -> str:
    require_string(f"The {what} of {of!r:.80}", text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"The {what} of {of!r:.80} is no Unicode text ({error.reason}); repair it.") from error
    return plain_string(text)


def _check_nested(name: str, value: Any, left: int) -> None:
    """Raise TypeError for keys that JSON would make strings of, and for values so deep that they are not read again."""
    if not isinstance(value, (Mapping, list, tuple)):
        return
    if left == 0:
        raise TypeError(f"The metadata of {name!r:.80} is nested more than {MOST_NESTED} deep.")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(
                    f"The metadata of {name!r:.80} has the key {key!r:.80}, {type_name(key)}; a string is needed."
                )
    for part in value.values() if isinstance(value, Mapping) else value:
        _check_nested(name, part, left - 1)


def insert(connection: Connection, numbers: Sequence[int], entries: Sequence[Entry]) -> None:
    """Write texts, their words and their attributes."""
    connection.executemany(_INSERT, [_record(number, one) for number, one in zip(numbers, entries, strict=True)])
    words = [(number, one.chunk.text) for number, one in zip(numbers, entries, strict=True)]
    connection.executemany(_WORDS, words)
    attributes = [
        (*attribute, number)
        for number, one in zip(numbers, entries, strict=True)
        for attribute in _attributes(json.loads(one.metadata))
    ]
    connection.executemany("INSERT OR IGNORE INTO attribute VALUES (?, ?, ?)", attributes)


def delete(connection: Connection, numbers: Sequence[int]) -> None:
    """Remove texts, their words and their attributes."""
    for some in _parts(numbers):
        where = f"number IN ({_marks(some)})"
        found = connection.execute(f"SELECT number, metadata, text FROM chunk WHERE {where}", some).fetchall()
        connection.executemany(_NO_WORDS, [(number, text) for number, _, text in found])
        gone = [
            (*attribute, number) for number, metadata, _ in found for attribute in _attributes(json.loads(metadata))
        ]
        connection.executemany("DELETE FROM attribute WHERE key=? AND value IS ? AND number=?", gone)
        connection.execute(f"DELETE FROM chunk WHERE {where}", some)


def hits(connection: Connection, numbers: Sequence[int], database: str) -> dict[int, Hit]:
    """Texts by number, without scores.

    Raises:
        StoreCorruptError: a text that is not there, or not as it was written.
    """
    found = {}
    for some in _parts(numbers):
        for record in connection.execute(f"SELECT {_COLUMNS} FROM chunk WHERE number IN ({_marks(some)})", some):
            found[record[0]] = hit(record, database)
    for number in numbers:
        if number not in found:
            raise StoreCorruptError(f"{database} is damaged: text {number} is missing. Restore it from a copy.")
    return found


def ids(connection: Connection, numbers: Sequence[int]) -> dict[int, str]:
    """The ids of texts, by number."""
    found: dict[int, str] = {}
    for some in _parts(numbers):
        found.update(connection.execute(f"SELECT number, id FROM chunk WHERE number IN ({_marks(some)})", some))
    return found


def every(connection: Connection, database: str) -> Iterator[tuple[int, Hit]]:
    """All texts in the order of their numbers."""
    for record in connection.execute(f"SELECT {_COLUMNS} FROM chunk ORDER BY number"):
        yield record[0], hit(record, database)


def attributes_differ(connection: Connection, database: str) -> bool:
    """Whether what filters ask is something else than what the texts have."""
    expected = sum(
        crc32(repr((*attribute, number)).encode())
        for number, one in every(connection, database)
        for attribute in _attributes(one.metadata)
    )
    return expected != sum(crc32(repr(record).encode()) for record in connection.execute("SELECT * FROM attribute"))


def hit(record: Sequence[Any], database: str) -> Hit:
    """A row of the table, if it is as it was written."""
    *fields, check, text = record
    try:
        sound = _check(fields) == check and digest(text) == fields[-1]
    except (TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise StoreCorruptError(
            f"{database} is damaged: text {record[0]} is not as it was written. Restore it from a copy, or index the "
            "sources again."
        )
    _, name, path, _, byte_start, byte_end, line_start, line_end, heading, metadata, _ = fields
    return Hit(
        name,
        0.0,
        text,
        path,
        byte_start,
        byte_end,
        line_start,
        line_end,
        tuple(json.loads(heading)),
        json.loads(metadata),
    )


def numbers_of(connection: Connection, column: str, values: Sequence[Any]) -> dict[Any, list[int]]:
    """The numbers of the texts whose id, path or digest is among these, by that."""
    found: dict[Any, list[int]] = {}
    for some in _parts(values):
        query = f"SELECT {column}, number FROM chunk WHERE {column} IN ({_marks(some)}) ORDER BY number"
        for value, number in connection.execute(query, some):
            found.setdefault(value, []).append(number)
    return found


def put_file(connection: Connection, path: str, stat: FileStat) -> None:
    """Write down the state of a file; errors as `state`."""
    path, stat = state(path, stat)
    fields = (path, stat.size, stat.mtime_ns, stat.sha256)
    connection.execute("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?)", (*fields, _check(fields)))


def files(connection: Connection, database: str) -> dict[str, FileStat]:
    """The states of all files, by path, in order.

    Raises:
        StoreCorruptError: one that is not as it was written.
    """
    found = {}
    for *fields, check in connection.execute("SELECT * FROM file ORDER BY path"):
        if _check(fields) != check:
            raise StoreCorruptError(f"{database} is damaged: the file {fields[0]!r} is not as it was written.")
        found[fields[0]] = FileStat(*fields[1:])
    return found


def _record(number: int, one: Entry) -> tuple[Any, ...]:
    chunk = one.chunk
    fields = (
        number,
        one.id,
        chunk.path,
        chunk.ordinal,
        chunk.byte_start,
        chunk.byte_end,
        chunk.line_start,
        chunk.line_end,
        json.dumps(list(chunk.heading), ensure_ascii=False),
        one.metadata,
        one.digest,
    )
    return (*fields, _check(fields), chunk.text)


def _check(fields: Sequence[Any]) -> int:
    return crc32(repr(tuple(fields)).encode("utf-8", "surrogatepass"))


def _attributes(metadata: Mapping[str, Any]) -> set[tuple[str, Any]]:
    """What a filter can ask for: the numbers, strings and booleans, and each of those in a list, as SQLite has them.

    Its integers have 64 bits, true is 1, and a whole number is the same whether it was written with a point or not.
    """
    found: set[tuple[str, Any]] = set()
    for key, value in metadata.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, (bool, int)) and -(2**63) <= each < 2**63:
                found.add((key, int(each)))
            elif isinstance(each, (str, float)):
                found.add((key, each))
    return found


def _parts(values: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), _AT_ONCE):
        yield list(values[start : start + _AT_ONCE])


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
