"""Memory for results, which a later result of about the same size takes over."""

import os
import threading
import weakref
from collections import deque

import numpy as np

from custom_kernels.cpu.arguments import Floats
from custom_kernels.cpu.library import library

# Below this many floats numpy's own memory is as good.
SMALL_FLOATS = 1 << 16


def empty(shape: tuple[int, ...]) -> Floats:
    """An uninitialised array; a large one takes memory that an earlier one gave back, so its pages are there."""
    floats = 1
    for extent in shape:
        floats *= extent
    if floats < SMALL_FLOATS:
        return np.empty(shape, np.float32)
    return np.asarray(_Block(shape, floats))


def trim() -> None:
    """Give the system what memory has been freed since and is kept by malloc, that of weights above all."""
    library().mlx_embed_trim()


class _Block:
    """Memory of an array made by `empty`, which numpy holds on to for as long as the array or a part of it is there."""

    __slots__ = ("__array_interface__", "__weakref__")

    def __init__(self, shape: tuple[int, ...], floats: int) -> None:
        step = 1 << (floats.bit_length() - 3)  # at most a quarter more than asked for
        size = -(-floats // step) * step
        address = _pool.take(size)
        if not address:
            raise MemoryError(f"There is no memory for an array of shape {shape}.")
        self.__array_interface__ = {"shape": shape, "typestr": "<f4", "data": (address, False), "version": 3}
        _pool.lent.add(_Lease(self, address, size))


class _Lease(weakref.ref[_Block]):
    """Tells the pool when a block has gone.

    Not by a `__del__`: Python drops what is raised in one, and a Ctrl-C that came there would be lost. What is called
    here is a method of C, in which none can come.
    """

    __slots__ = ("address", "size")

    def __new__(cls, block: _Block, address: int, size: int) -> "_Lease":
        return super().__new__(cls, block, _pool.returned.append)

    def __init__(self, block: _Block, address: int, size: int) -> None:
        self.address, self.size = address, size


class _Pool:
    """Memory that arrays have given back, by size; it is taken stock of when memory is needed next."""

    most_kept = 1 << 26  # floats

    def __init__(self) -> None:
        self.free: dict[int, list[int]] = {}
        self.kept = 0
        self.lent: set[_Lease] = set()
        self.returned: deque[_Lease] = deque()
        self.renew_lock()

    def renew_lock(self) -> None:
        """Of a forked child, where the thread that held the lock when it was copied does not exist."""
        self.lock = threading.Lock()

    def take(self, size: int) -> int:
        """The address of so many floats; 0 where there is no memory."""
        with self.lock:
            while self.returned:
                self._put(self.returned.popleft())
            stack = self.free.get(size)
            if stack:
                self.kept -= size
                return stack.pop()
        return library().mlx_embed_allocate(size) or 0

    def _put(self, lease: _Lease) -> None:
        self.lent.discard(lease)
        if self.kept + lease.size <= self.most_kept:
            self.free.setdefault(lease.size, []).append(lease.address)
            self.kept += lease.size
        else:
            library().mlx_embed_release(lease.address)


_pool = _Pool()
os.register_at_fork(after_in_child=_pool.renew_lock)
