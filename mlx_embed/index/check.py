"""The whole of an index read and compared with its checksums, and its parts with each other."""

from sqlite3 import Connection

import numpy as np

from mlx_embed.errors import StoreCorruptError
from mlx_embed.index import database, rows, seal, segments
from mlx_embed.index.database import errors_of
from mlx_embed.index.store import Store
from mlx_embed.index.view import View

_REPAIR = "Restore it from a copy, or index the sources again."


def check(store: Store) -> None:
    """Read everything; the list of words only where the index may be written, since FTS5 has it so.

    Raises:
        StoreCorruptError: a file that is not as it was written, which the message names.
    """
    with store.reading() as (connection, view):
        seal.check(store.folder, connection)
        _check_database(connection, store.database)
        for segment in view.segments:
            segments.check(segment.columns.values())
        _check_texts(connection, view, store.database)
        rows.files(connection, store.database)
    _check_words(store)


def _check_database(connection: Connection, path: str) -> None:
    (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if said != "ok":
        raise StoreCorruptError(f"{path} is damaged: {said}. {_REPAIR}")


def _check_texts(connection: Connection, view: View, path: str) -> None:
    """Every text has one vector and its words, and every vector that is not gone has a text."""
    there = np.array([number for number, _ in rows.every(connection, path)], dtype=np.int64)
    alive = [segment.numbers[segment.places(~segment.dead)] for segment in view.segments]
    if not np.array_equal(there, np.concatenate([np.zeros(0, dtype=np.int64), *alive])):
        raise StoreCorruptError(f"{path} is damaged: its texts and its vectors are not of each other. {_REPAIR}")
    if rows.attributes_differ(connection, path):
        raise StoreCorruptError(f"{path} is damaged: what filters ask is not what the texts have. {_REPAIR}")


def _check_words(store: Store) -> None:
    if store.read_only:
        return
    with errors_of(store.folder):
        connection = database.connect(store.folder, write=True)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO words(words, rank) VALUES ('integrity-check', 1)")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
