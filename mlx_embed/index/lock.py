"""The right to write to an index: one process has it, and says who it is."""

import fcntl
import json
import os
import socket
import sys
import time
from datetime import datetime
from pathlib import Path

from mlx_embed.errors import StoreLockedError
from mlx_embed.index.database import errors_of

LOCK = "lock"


class Lock:
    """The lock of one folder. The system gives it back when the process ends, however it does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / LOCK
        self._held: int | None = None
        self._holder = 0

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
                    holder = _holder(file)
                    os.close(file)
                    raise StoreLockedError(
                        f"{holder} is writing to the index in {self._folder}: wait until it has ended, or end it. "
                        "Reading goes on meanwhile."
                    ) from None
                time.sleep(0.02)
            except OSError:
                os.close(file)
                with errors_of(self._folder):
                    raise
        self._held, self._holder = file, os.getpid()
        words = {"pid": self._holder, "host": socket.gethostname(), "program": " ".join(sys.argv)[:200]}
        words["since"] = datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(words).encode(), 0)
        except OSError:  # a full disk: who holds it cannot be told, but it is held
            pass

    def release(self) -> None:
        """Give it back, if this process has it."""
        if self._held is not None:
            # A child that was forked meanwhile has the file open too, so that to close it here would not be enough.
            if os.getpid() == self._holder:
                fcntl.flock(self._held, fcntl.LOCK_UN)
            os.close(self._held)
            self._held = None


def _holder(file: int) -> str:
    """Who has the lock, as the file says."""
    try:
        words = json.loads(os.pread(file, 4096, 0))
        return f"Process {words['pid']} on {words['host']} ({words['program']}), since {words['since']},"
    except (OSError, ValueError, KeyError, TypeError):
        return "Another process"
