"""The right to write to an index: one process has it, and says who it is."""

import fcntl
import json
import os
import socket
import sys
import time
import weakref
from datetime import datetime
from pathlib import Path

from mlx_embed.errors import StoreLockedError
from mlx_embed.index.database import errors_of

LOCK = "lock"


class Lock:
    """The lock of one folder. The system gives it back when the process ends, however it does.

    So does Python, of a lock that nothing refers to any more: an index that nobody has closed holds up no other.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / LOCK
        self._held: weakref.finalize[[int, int], Lock] | None = None

    def acquire(self, patience: float = 0.0) -> None:
        """Take it; nothing where it is held already.

        Args:
            patience: seconds to wait for another process.

        Raises:
            StoreLockedError: another has it, and the message says who.
            StoreError: the folder cannot be written.
        """
        if self._held is not None:
            return
        with errors_of(self._folder):
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    held = _held_by(file, self._folder)
                    os.close(file)
                    raise StoreLockedError(held) from None
                time.sleep(0.02)
            except OSError:
                os.close(file)
                with errors_of(self._folder):
                    raise
        self._held = weakref.finalize(self, _give_back, file, os.getpid())
        self._held.atexit = False  # by then a daemon thread may still write: the system gives it back behind that
        words = {"pid": os.getpid(), "host": socket.gethostname(), "program": " ".join(sys.argv)[:200]}
        words["since"] = datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(words).encode(), 0)
        except OSError:  # a full disk: who holds it cannot be told, but it is held
            pass

    def release(self) -> None:
        """Give it back, if this process has it."""
        if self._held is not None:
            self._held()
            self._held = None


def _give_back(file: int, holder: int) -> None:
    # A child that was forked meanwhile has the file open too, so that to close it here would not be enough.
    if os.getpid() == holder:
        fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def _held_by(file: int, folder: Path) -> str:
    """Who has the lock, as the file says, and what to do about it."""
    try:
        words = json.loads(os.pread(file, 4096, 0))
        if (words["pid"], words["host"]) == (os.getpid(), socket.gethostname()):
            return f"This process is writing to the index in {folder} by another Index: close that, or write by it."
        holder = f"Process {words['pid']} on {words['host']} ({words['program']}), since {words['since']},"
    except (OSError, ValueError, KeyError, TypeError):
        holder = "Another process"
    return (
        f"{holder} is writing to the index in {folder}: wait until it has ended, or end it. Reading goes on meanwhile."
    )
