"""Checksums of the whole database, written when whoever has written to an index closes it.

SQLite sees that a page is no page, but not that a letter has become another. While an index is open to be written, and
after a process that wrote was killed, there is no seal.
"""

import json
import mmap
import os
from pathlib import Path
from sqlite3 import Connection
from zlib import crc32

from mlx_embed.errors import StoreCorruptError
from mlx_embed.index.checksums import checksums
from mlx_embed.index.database import DATABASE, errors_of, flush, fold, has_log, said

SEAL = "index.seal"
# Bytes of a database that are read when it is opened: some hundredths of a second. Of a larger one `check` reads all.
MOST_AT_OPENING = 2**28
_PART = 2**22


def close(folder: Path, connection: Connection) -> None:
    """Fold the log into the database and write the seal; neither while others are reading. The caller has the lock."""
    if not fold(connection):
        return
    generation = said(connection, folder, "generation")
    words = json.dumps({"generation": generation, "checksums": _checksums(folder / DATABASE)})
    fresh = folder / f"{SEAL}.new"
    try:
        with open(fresh, "w") as file:
            file.write(json.dumps({"seal": words, "check": crc32(words.encode())}) + "\n")
            file.flush()
            flush(file.fileno())
        os.replace(fresh, folder / SEAL)
    finally:
        fresh.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Before the database is changed. The caller has the lock."""
    with errors_of(folder):
        (folder / SEAL).unlink(missing_ok=True)


def check(folder: Path, connection: Connection, most: int | None = None) -> None:
    """Compare the database with its seal, where one holds. The connection is in a transaction.

    Args:
        folder: of the index.
        connection: whose transaction keeps others from changing the file.
        most: bytes beyond which it is not read.

    Raises:
        StoreCorruptError: they differ, or the seal is not as it was written.
    """
    database, seal = folder / DATABASE, folder / SEAL
    generation = said(connection, folder, "generation")
    if has_log(database) or (most is not None and database.stat().st_size > most):
        return
    try:
        outer = json.loads(seal.read_bytes())
        words = outer["seal"]
        if crc32(words.encode()) != outer["check"]:
            raise ValueError("its checksum is another")
        sealed = json.loads(words)
        sealed_generation, sealed_sums = sealed["generation"], sealed["checksums"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreCorruptError(
            f"{seal} is damaged ({error}). If `check` finds nothing once it is removed, the index is sound."
        ) from error
    if sealed_generation == generation and sealed_sums != _checksums(database):
        raise StoreCorruptError(
            f"{database} is damaged: it is not as it was when it was closed. Restore it from a copy, or index the "
            "sources again."
        )


def _checksums(path: Path) -> list[int]:
    """Of each part of the file."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
            parts = [view[start : start + _PART] for start in range(0, size, _PART)]
            try:
                return checksums(parts)
            finally:
                for part in parts:
                    part.release()
