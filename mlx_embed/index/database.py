"""The SQLite file of an index: its tables, its connections, and what its errors mean."""

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlx_embed.errors import MLXEmbedError, StoreCorruptError, StoreError, StoreLockedError

DATABASE = "index.sqlite"

# `number` counts every text that was ever added, and never twice: of a chunk, its attributes, its words, its vector.
# A row of `block` is a part of a segment: see blocks.py. `check` is a checksum of the other columns.
SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE block(
    segment INTEGER NOT NULL, number INTEGER NOT NULL, rows INTEGER NOT NULL, sums BLOB NOT NULL, bounds BLOB NOT NULL,
    dead BLOB NOT NULL, blank BLOB NOT NULL, numbers BLOB NOT NULL, "check" INTEGER NOT NULL,
    PRIMARY KEY (segment, number));
CREATE TABLE file(
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,
    "check" INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE chunk(
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, path TEXT NOT NULL, ordinal INTEGER NOT NULL,
    byte_start INTEGER NOT NULL, byte_end INTEGER NOT NULL, line_start INTEGER NOT NULL, line_end INTEGER NOT NULL,
    heading TEXT NOT NULL, metadata TEXT NOT NULL, digest BLOB NOT NULL, "check" INTEGER NOT NULL,
    text TEXT NOT NULL);
CREATE INDEX chunk_path ON chunk(path);
CREATE INDEX chunk_digest ON chunk(digest);
CREATE TABLE attribute(key TEXT, value, number INTEGER, PRIMARY KEY (key, value, number)) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5(text, content='chunk', content_rowid='number', tokenize='porter unicode61');
"""
# Milliseconds to wait for another process that is in the middle of a commit.
_PATIENCE = 10_000


def create(folder: Path, meta: dict[str, str]) -> None:
    """Make the database, all of it or none: it has its name only when it is complete. The caller has the lock."""
    fresh = folder / f"{DATABASE}.new"
    for left in (fresh, folder / f"{fresh.name}-wal", folder / f"{fresh.name}-shm"):
        left.unlink(missing_ok=True)
    with errors_of(folder):
        connection = sqlite3.connect(fresh, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN")
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            connection.execute("COMMIT")
        finally:
            connection.close()
        synced(fresh)
        os.rename(fresh, folder / DATABASE)
        synced(folder)


def connect(folder: Path, *, write: bool = False) -> sqlite3.Connection:
    """A connection to the database that is there.

    On media that cannot be written, an index that was closed is read as it lies there.

    Raises:
        StoreError: there is none; StoreCorruptError where the file is something else.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise StoreError(
            f"There is no index in {folder}; make one with Index.create, or `mlx-embed index`, in a new folder."
        )
    with errors_of(folder):
        connection = _opened(path, "rw" if write else "ro")
        try:
            connection.execute("PRAGMA cell_size_check=ON")
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA temp_store=MEMORY")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA fullfsync=ON")
            connection.execute("SELECT count(*) FROM meta").fetchone()
        except sqlite3.OperationalError:
            connection.close()
            if write or os.access(folder, os.W_OK) or has_log(path):
                raise
            connection = _opened(path, "ro&immutable=1")
            connection.execute("SELECT count(*) FROM meta").fetchone()
    return connection


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute(f"PRAGMA busy_timeout={_PATIENCE}")
    return connection


def identity(folder: Path) -> tuple[int, int] | None:
    """By which the database of a folder is known from one that has taken its place; None where there is none."""
    try:
        state = os.stat(folder / DATABASE)
    except OSError:
        return None
    return state.st_dev, state.st_ino


def fold(connection: sqlite3.Connection) -> bool:
    """Fold the log into the database and give its space back; False where others go on reading for a second."""
    connection.execute(f"PRAGMA busy_timeout={_PATIENCE // 10}")
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.execute(f"PRAGMA busy_timeout={_PATIENCE}")
    return not busy


def has_log(path: Path) -> bool:
    """Whether there is more to the database than its file: what was committed since it was closed last."""
    log = path.with_name(f"{path.name}-wal")
    return log.is_file() and log.stat().st_size > 0


def synced(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    held = os.open(path, os.O_RDONLY)
    try:
        flush(held)
    finally:
        os.close(held)


def flush(file: int) -> None:
    """Have the system write an open file to the disk itself: macOS's fsync goes no further than the disk's memory."""
    if (whole := getattr(fcntl, "F_FULLFSYNC", None)) is not None:
        try:
            fcntl.fcntl(file, whole)
            return
        except OSError:  # a file system that has no such thing
            pass
    os.fsync(file)


def said(connection: sqlite3.Connection, folder: Path, key: str) -> str:
    """What the database says of the index under a key that every index has.

    Raises:
        StoreCorruptError: it is not there.
    """
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if found is None:
        raise StoreCorruptError(_DAMAGED.format(path=folder / DATABASE, error=f"it does not say its {key}"))
    return str(found[0])


def counted(connection: sqlite3.Connection, folder: Path, key: str) -> int:
    """As `said`, of a number; StoreCorruptError too where it is none."""
    value = said(connection, folder, key)
    try:
        return int(value)
    except ValueError:
        error = f"its {key}: {value!r}"
        raise StoreCorruptError(_DAMAGED.format(path=folder / DATABASE, error=error)) from None


@contextmanager
def errors_of(folder: Path) -> Iterator[None]:
    """Say what errors of SQLite and of the system mean for the index in `folder`, and what to do.

    Raises:
        StoreError, StoreLockedError, StoreCorruptError: instead of sqlite3.Error, OSError and UnicodeDecodeError.
    """
    try:
        yield
    except MLXEmbedError:
        raise
    except sqlite3.Error as error:
        raise _of_sqlite(folder, error) from error
    except OSError as error:
        raise StoreError(_of_system(folder, error)) from error
    except UnicodeDecodeError as error:  # SQLite tells of a broken table in the table's own words
        raise StoreCorruptError(_DAMAGED.format(path=folder / DATABASE, error=error)) from error


_FULL = (
    "No space is left to write the index in {folder} ({error}). All that was committed is there; free some and go on."
)
_SHUT = "The index in {folder} cannot be written here ({error}); open it with read_only=True, or copy it."


_DAMAGED = "{path} is damaged ({error}). Restore it from a copy, or index the sources again."


def _of_sqlite(folder: Path, error: sqlite3.Error) -> StoreError:
    said = str(error)
    if "is full" in said:
        return StoreError(_FULL.format(folder=folder, error=said))
    if "readonly" in said or "unable to open" in said:
        return StoreError(_SHUT.format(folder=folder, error=said))
    if "is locked" in said:
        return StoreLockedError(f"Another process is in the middle of a commit to {folder / DATABASE}; try again.")
    if "fts5" in said and "no such module" in said:
        return StoreError("This Python's SQLite has no FTS5, which an index needs; use another build of Python.")
    if "disk I/O error" in said:
        return StoreError(
            f"{folder / DATABASE} could not be read or written ({said}): the disk may be full or failing. All that was "
            "committed is there."
        )
    return StoreCorruptError(_DAMAGED.format(path=folder / DATABASE, error=said))


def _of_system(folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return _FULL.format(folder=folder, error=error)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return _SHUT.format(folder=folder, error=error)
    return f"The index in {folder} could not be read or written: {error}"
