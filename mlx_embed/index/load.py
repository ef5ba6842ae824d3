"""Texts and vectors from a Parquet file or a LanceDB table, into an index."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlx_embed.errors import StoreMismatchError
from mlx_embed.index import database, rows
from mlx_embed.index.entries import Chunk, FileStat
from mlx_embed.index.export import SAID
from mlx_embed.index.given import require_once, vectors_of
from mlx_embed.index.rows import Entry
from mlx_embed.index.statement import Statement
from mlx_embed.index.store import Store
from mlx_embed.records.reading import check_columns

Embed: TypeAlias = Callable[[Sequence[Entry]], npt.NDArray[np.float32]]

# Texts of a commit; those of one file are never parted.
_AT_ONCE = 4096
_KNOWN = {"id", "text", "path", "byte_start", "byte_end", "line_start", "line_end", "heading", "metadata", "vector"}


def load(store: Store, path: Path, embed: Embed, *, same_model: bool = False) -> int:
    """Put the rows of a table into an index; see `Index.load`."""
    schema, found = _opened(path)
    if missing := [name for name in ("id", "text") if name not in schema.names]:
        raise ValueError(f"{path} has no column {missing[0]!r}; it has {', '.join(schema.names)}.")
    check_columns(str(path), schema.names, schema.names)
    said = json.loads((schema.metadata or {}).get(SAID, b"{}"))
    files = {name: FileStat(**stat) for name, stat in said.get("files", {}).items()}
    has_vectors = "vector" in schema.names
    if "statement" in said:
        theirs = Statement(**said["statement"])
        chunker = theirs.chunker if files else store.statement.chunker
        store.statement.require(replace(theirs, row_dtype=store.statement.row_dtype, chunker=chunker), store.folder)
    elif has_vectors and not same_model:
        raise StoreMismatchError(
            f"{path} does not say of which model its vectors are: give same_model=True if they are of "
            f"{store.statement.model}, made as this index makes them; without a column 'vector' texts are embedded."
        )
    store.acquire()
    with store.reading() as (connection, _):
        before = database.counted(connection, store.folder, "numbers")
    count, done = 0, set[str]()
    for batch in _whole_files(found):
        entries = [_entry(row, path, exported="statement" in said) for row in batch]
        if has_vectors:
            _check_vectors(batch, path, store.statement.dimension)
            vectors = vectors_of([row["vector"] for row in batch], len(batch), store.statement)
        else:
            vectors = embed(entries)
        paths = {entry.chunk.path for entry in entries} - {""}
        if again := sorted(paths & done):
            raise ValueError(f"The rows of {again[0]} are apart in {path}: sort it by path.")
        done |= paths
        _put(store, entries, vectors, {name: files[name] for name in paths if name in files}, before)
        count += len(batch)
    empty = {name: stat for name, stat in files.items() if name not in done}
    if empty:
        _put(store, [], np.zeros((0, store.statement.dimension), dtype=np.float32), empty, before)
    return count


def _put(
    store: Store, entries: Sequence[Entry], vectors: npt.NDArray[np.float32], files: Mapping[str, FileStat], before: int
) -> None:
    """Commit texts and files in the place of those with the same ids and paths.

    `before` is the largest number of a text that was there before the table, of which none takes another's place.
    """
    ids = [entry.id for entry in entries]
    paths = {*files, *(entry.chunk.path for entry in entries)} - {""}
    with store.writing() as transaction:
        known = rows.numbers_of(transaction.connection, "id", ids)
        require_once([*ids, *(name for name, numbers in known.items() if numbers[0] > before)])
        there = [
            *known.values(),
            *rows.numbers_of(transaction.connection, "path", sorted(paths)).values(),
        ]
        transaction.remove(sorted({number for numbers in there for number in numbers}))
        transaction.put(entries, vectors)
        for name, stat in files.items():
            rows.put_file(transaction.connection, name, stat)


def _opened(path: Path) -> tuple[Any, Iterator[dict[str, Any]]]:
    """The schema of a table, and its rows."""
    if path.suffix not in (".parquet", ".lance"):
        raise ValueError(f"{path} ends with neither .parquet nor .lance; name a file or table that does.")
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}.")
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            'To load a table, install pyarrow: pip install ".[parquet]" in a clone of mlx-embed'
        ) from error
    from mlx_embed.records.parquet import faults_of

    if path.suffix == ".parquet":
        with faults_of(path):
            file = parquet.ParquetFile(path)

        def read() -> Iterator[dict[str, Any]]:
            with faults_of(path):
                yield from _rows(file.iter_batches(batch_size=_AT_ONCE))

        return file.schema_arrow, read()
    try:
        import lancedb
    except ImportError as error:
        raise ImportError("To load a LanceDB table, install it: pip install lancedb") from error
    table = lancedb.connect(str(path.parent)).open_table(path.stem)
    return table.schema, _rows(table.search().to_batches(_AT_ONCE))


def _whole_files(read: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rows, some thousand at a time, and never a part of a file's alone."""
    found: list[dict[str, Any]] = []
    for row in read:
        if len(found) >= _AT_ONCE and (not row.get("path") or row.get("path") != found[-1].get("path")):
            yield found
            found = []
        found.append(row)
    if found:
        yield found


def _rows(batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """The rows of record batches; a vector is a numpy array [D]."""
    from mlx_embed.records.parquet import in_microseconds

    for batch in batches:
        names = batch.schema.names
        plain = in_microseconds(batch.select([name for name in names if name != "vector"])).to_pylist()
        if "vector" not in names:
            yield from plain
            continue
        vectors = batch.column("vector").to_numpy(zero_copy_only=False)
        yield from ({**row, "vector": vector} for row, vector in zip(plain, vectors, strict=True))


def _check_vectors(rows: Sequence[Mapping[str, Any]], table: Path, dimension: int) -> None:
    """Raise ValueError for the first row of a table whose vector is none, or of another length."""
    for row in rows:
        vector = row["vector"]
        if np.shape(vector) != (dimension,):
            found = f"a vector of {len(vector)}" if np.ndim(vector) else repr(vector)
            raise ValueError(f"{table} has {found:.80} for {row['id']!r}, where {dimension} numbers are needed.")


def _entry(row: Mapping[str, Any], table: Path, *, exported: bool) -> Entry:
    """A row as a text to be stored; of a table that `export` has not written, what else it has is metadata."""
    name = str(row["id"]) if type(row["id"]) is int else row["id"]
    path = row.get("path") or ""
    ordinal = name.removeprefix(f"{path}#") if path and isinstance(name, str) else ""
    known = _KNOWN if exported else _KNOWN - {"metadata"}
    others = {key: _of_json(value, key, table) for key, value in row.items() if key not in known}
    about = json.loads(row["metadata"]) if exported else {}
    heading = row.get("heading") or ()
    chunk = Chunk(
        row["text"],
        path,
        row.get("byte_start") or 0,
        row.get("byte_end") or 0,
        row.get("line_start") or 0,
        row.get("line_end") or 0,
        (heading,) if isinstance(heading, str) else heading,
        int(ordinal) if ordinal.isdecimal() else 0,
        {**{key: value for key, value in others.items() if value is not None}, **about},
    )
    return rows.entry(name, chunk)


def _of_json(value: Any, column: str, table: Path) -> Any:
    """A value of a column as metadata has it: times as ISO 8601 writes them, in whose order strings are; NaN is null.

    Raises:
        ValueError: bytes, infinite numbers, and whatever else JSON has not.
    """
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, Mapping):
        return {key: _of_json(part, column, table) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_of_json(part, column, table) for part in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{table} has {value!r:.80} in its column {column!r}, which metadata cannot hold: leave it out.")
