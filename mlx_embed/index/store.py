"""Store: an index's folder, without its model. Who reads gets what was committed; who writes commits all or nothing."""

import os
import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlx_embed.errors import StoreError
from mlx_embed.index import database, seal
from mlx_embed.index.database import DATABASE, errors_of
from mlx_embed.index.lock import Lock
from mlx_embed.index.segments import FOLDER, columns
from mlx_embed.index.statement import Statement
from mlx_embed.index.transaction import Transaction
from mlx_embed.index.view import View

# Seconds that making an index waits for another process that makes it too.
_MAKING = 30.0
# How often a reader begins again where an index was compacted between its two looks at it.
_ATTEMPTS = 20


class Store:
    """The files of an index.

    Attributes:
        folder: where they are.
        statement: what the index says of itself.
        files: the files of its model, as `statement.seen` told them.
        columns: what its segments have of each row.
        read_only: whether writing is refused.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Open the index in a folder.

        Raises:
            StoreError: there is none, or it cannot be read; see `database.connect` and `Statement.read`.
        """
        self.folder = folder
        self.read_only = read_only
        self._opened_by = self._process = os.getpid()
        self._abandoned: list[object] = []
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._lock = Lock(folder)
        self._writing = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self._view: View | None = None
        self._closed = False
        connection = database.connect(folder)
        self._identity = database.identity(folder)
        with errors_of(folder):
            connection.execute("BEGIN")
            seal.check(folder, connection, seal.MOST_AT_OPENING)
            self.statement = Statement.read(connection, folder)
            connection.execute("ROLLBACK")
            self.files = database.said(connection, folder, "files")
        self.columns = columns(self.statement.dimension, self.statement.row_dtype)
        self._idle.put(connection)

    @classmethod
    def create(cls, folder: Path, statement: Statement, *, files: str = "", exist_ok: bool = False) -> "Store":
        """Make an index, or with exist_ok open the one that is there if it says the same of itself.

        `files` are the files of its model, as `statement.seen` tells them.

        Raises:
            FileExistsError: an index, or something else, is there.
            StoreMismatchError: an index that says something else of itself.
            StoreError: the folder cannot be written.
        """
        if os.path.isfile(folder):  # of a name that is too long pathlib would raise
            raise FileExistsError(f"{folder} is a file; name a new folder for the index.")
        made = False
        with errors_of(folder):
            there = (folder / DATABASE).exists()
        if not there:  # else it needs no lock, which a writer may hold for hours
            with errors_of(folder):
                folder.mkdir(parents=True, exist_ok=True)
            lock = Lock(folder)
            lock.acquire(_MAKING)
            try:
                if made := not (folder / DATABASE).exists():
                    _require_empty(folder)
                    with errors_of(folder):
                        (folder / FOLDER).mkdir(exist_ok=True)
                    numbers = dict.fromkeys(("generation", "numbers", "segments"), "0")
                    database.create(folder, {**statement.meta(), **numbers, "files": files})
            finally:
                lock.release()
        if not (made or exist_ok):
            raise FileExistsError(f"There is an index in {folder}; open it, or name another folder.")
        store = cls(folder)
        store.statement.require(statement, folder)
        return store

    @property
    def database(self) -> str:
        """The path of the database, for messages."""
        return str(self.folder / DATABASE)

    @contextmanager
    def reading(self) -> Iterator[tuple[sqlite3.Connection, View]]:
        """The database and the segments, as of one commit, whatever is written meanwhile."""
        connection = self._connection()
        try:
            with errors_of(self.folder):
                yield connection, self._begin(connection)
        finally:
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            finally:
                if self._closed:
                    connection.close()
                else:
                    self._idle.put(connection)

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """A transaction: committed at the end, or not at all where something is raised.

        Raises:
            StoreLockedError: another process is writing.
            StoreError: the index is open to be read only, the disk is full, or something else stands in the way.
        """
        self.acquire()
        with self._writing, errors_of(self.folder):
            connection = self._writer_connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                view = self._current(connection)
                transaction = Transaction(connection, self.folder, self.columns, view, self.statement.row_dtype)
                try:
                    yield transaction
                    transaction.finish()
                finally:
                    transaction.close()
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def acquire(self) -> None:
        """Take the lock, which is held from now on until `close`.

        Raises:
            StoreLockedError: another process has it.
            StoreError: the index is open to be read only.
        """
        self._require_open()
        if self.read_only:
            raise StoreError(f"The index in {self.folder} was opened with read_only=True; open it without, to write.")
        if os.getpid() != self._opened_by:
            raise StoreError("This index was opened before the process was forked; open it again in the child.")
        with self._writing:
            self._lock.acquire()

    def vacuum(self) -> None:
        """Give back the space in the database that nothing uses."""
        with self._writing, errors_of(self.folder):
            connection = self._writer_connection()
            connection.execute("VACUUM")
            database.fold(connection)

    def tidy(self) -> None:
        """Remove the files of segments that the database does not name. Who has them mapped keeps them."""
        with self._writing:  # what another thread is about to name is not named yet
            self.acquire()
            with self.reading() as (_, view):
                named = {
                    column.path(self.folder, segment.number).name
                    for segment in view.segments
                    for column in self.columns
                }
            with errors_of(self.folder):
                for path in (self.folder / FOLDER).iterdir():
                    if path.name not in named:
                        path.unlink()

    def close(self) -> None:
        """Give back the lock and the files; closing again does nothing."""
        self._closed = True
        self._leave_to_the_parent()
        with self._writing:
            while not self._idle.empty():
                self._idle.get().close()
            try:
                # On a full disk there is no seal: what was committed is there all the same.
                with suppress(sqlite3.Error, OSError):
                    if self._writer is not None and self._is_there():
                        seal.close(self.folder, self._writer)
            finally:
                if self._writer is not None:
                    self._writer.close()
                self._writer = self._view = None
                self._lock.release()

    def _writer_connection(self) -> sqlite3.Connection:
        self._require_open()
        if self._writer is None:
            self._writer = database.connect(self.folder, write=True)
            # Where files lie in layers, of which the upper ones alone are written, it is another from now on.
            self._identity = database.identity(self.folder)
            seal.remove(self.folder)
        return self._writer

    def _connection(self) -> sqlite3.Connection:
        self._require_open()
        self._leave_to_the_parent()
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return database.connect(self.folder)

    def _leave_to_the_parent(self) -> None:
        """In a forked child, which SQLite's connections do not survive: it opens its own, and does not close these."""
        if os.getpid() != self._process:
            self._abandoned += [self._idle, self._writer]
            self._process, self._idle, self._writer = os.getpid(), queue.LifoQueue(), None
            self._writing = threading.RLock()  # a thread that there is not any more may have had it

    def _begin(self, connection: sqlite3.Connection) -> View:
        for attempt in range(_ATTEMPTS):
            connection.execute("BEGIN")
            try:
                return self._current(connection)
            except FileNotFoundError as error:
                connection.execute("ROLLBACK")
                if attempt == _ATTEMPTS - 1:
                    raise StoreError(f"{error.filename} is missing; restore the index from a copy.") from error
        raise AssertionError

    def _current(self, connection: sqlite3.Connection) -> View:
        """The view of the commit that the connection's transaction sees."""
        generation = database.counted(connection, self.folder, "generation")
        view = self._view
        if view is None or view.generation != generation:
            view = View.load(connection, self.folder, self.columns, generation, view)
            self._view = view
        return view

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError(f"The index in {self.folder} was closed; open it again.")
        if not self._is_there():  # by their names, files of another index would be read and written
            raise StoreError(
                f"The index that was opened in {self.folder} is there no more: it was moved, removed or replaced. Open "
                "it where it is now."
            )

    def _is_there(self) -> bool:
        return database.identity(self.folder) == self._identity


def _require_empty(folder: Path) -> None:
    """Raise where there is anything that is not left over from making an index here."""
    ours = {"lock", FOLDER}
    if foreign := sorted(
        path.name for path in folder.iterdir() if not path.name.startswith((*ours, f"{DATABASE}.new"))
    ):
        raise FileExistsError(f"{folder} holds {foreign[0]}, which is of no index; name an empty folder, or a new one.")
