"""Arrays from one process to another through memory that both have: a file without a name."""

import mmap
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_SHARED = Path("/dev/shm")


def file() -> BinaryIO:
    """An empty file without a name, in memory where the system has a folder for that."""
    folder = _SHARED if _SHARED.is_dir() and os.access(_SHARED, os.W_OK) else None
    return tempfile.TemporaryFile(dir=folder)


class SharedArray:
    """The memory of one array at a time, or of some bytes, which grows with the largest that was there."""

    def __init__(self, descriptor: int) -> None:
        """Take the number of an open file, which stays the caller's to close."""
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None

    def write(self, array: npt.NDArray[Any]) -> None:
        """Put an array there.

        Raises:
            OSError: there is no room for it.
        """
        if array.nbytes:
            if os.fstat(self._descriptor).st_size < array.nbytes:
                if hasattr(os, "posix_fallocate"):  # without it, a full memory ends the process when it is written to
                    os.posix_fallocate(self._descriptor, 0, array.nbytes)
                else:
                    os.ftruncate(self._descriptor, array.nbytes)
            self._mapped(array.nbytes)[: array.nbytes] = np.ascontiguousarray(array).data.cast("B")

    def read(self, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
        """The array that was put there; it is overwritten by the next."""
        count = int(np.prod(shape, dtype=np.int64))
        if not count:
            return np.zeros(shape, dtype)
        return np.frombuffer(self._mapped(count * np.dtype(dtype).itemsize), dtype, count).reshape(shape)

    def _mapped(self, size: int) -> mmap.mmap:
        if self._map is None or len(self._map) < size:
            self._map = mmap.mmap(self._descriptor, os.fstat(self._descriptor).st_size)
        return self._map
