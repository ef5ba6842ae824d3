"""Memory for results, which a later result of about the same size takes over."""

import os
import threading
from typing import Any, ClassVar

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


class _Block:
    """Memory of an array made by `empty`: kept for a later array of about the same size when this one goes.

    What `__del__` needs are attributes of the class: names of the module may be gone when the process ends.
    """

    __slots__ = ("__array_interface__", "address", "size")

    free: ClassVar[dict[int, list[int]]] = {}
    kept = 0
    most_kept = 1 << 26  # floats
    release: ClassVar[Any] = None
    lock = threading.RLock()  # a collection inside the lock may run another block's __del__

    @classmethod
    def renew_lock(cls) -> None:
        """Of a forked child, where the thread that held the lock when it was copied does not exist."""
        cls.lock = threading.RLock()

    def __init__(self, shape: tuple[int, ...], floats: int) -> None:
        step = 1 << (floats.bit_length() - 3)  # at most a quarter more than asked for
        self.size = -(-floats // step) * step
        with _Block.lock:
            stack = _Block.free.get(self.size)
            self.address = stack.pop() if stack else 0
            if self.address:
                _Block.kept -= self.size
        if not self.address:
            _Block.release = library().mlx_embed_release
            self.address = library().mlx_embed_allocate(self.size) or 0
        if not self.address:
            raise MemoryError(f"There is no memory for an array of shape {shape}.")
        self.__array_interface__ = {"shape": shape, "typestr": "<f4", "data": (self.address, False), "version": 3}

    def __del__(self) -> None:
        if not getattr(self, "address", 0):
            return
        cls = type(self)
        with cls.lock:
            if cls.kept + self.size <= cls.most_kept:
                cls.free.setdefault(self.size, []).append(self.address)
                cls.kept += self.size
                return
        cls.release(self.address)


os.register_at_fork(after_in_child=_Block.renew_lock)
