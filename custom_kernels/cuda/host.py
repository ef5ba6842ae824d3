"""Between numpy and the GPU through pinned host memory.

MLX puts what the host writes or reads into managed memory, whose pages then wander between host and device a fault at
a time: for a batch of 65,536 tokens that costs more than a layer of MiniLM. Here a kernel copies from and to memory
that both can reach, and MLX's arrays never leave the device.
"""

import ctypes
import os
import threading
import time
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from custom_kernels.cuda.driver import allocate_pinned
from custom_kernels.cuda.launch import launch

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

THREADS = 256
# Numbers of a result that a single block copies, and for which the host looks at its memory again and again for so many
# seconds: it is awake when they are there, which takes a thread that sleeps some 0.1 ms, and finds its caches warm.
FEW = 2**13
WATCHED = 0.002


class Block:
    """Pinned host memory of `capacity` 4-byte words."""

    def __init__(self, capacity: int) -> None:
        address = allocate_pinned(4 * capacity)
        self.capacity = capacity
        self.words: Int32 = np.ctypeslib.as_array((ctypes.c_int32 * capacity).from_address(address))
        # Two ints of C, which is what MLX takes.
        self.address = [ctypes.c_int32(address & 0xFFFFFFFF).value, ctypes.c_int32(address >> 32).value]


class Pool:
    """Blocks to use again. They are never freed: a few of the largest batch's size are all there ever are."""

    def __init__(self) -> None:
        self._free: list[Block] = []
        self.renew_lock()
        os.register_at_fork(after_in_child=self.renew_lock)

    def renew_lock(self) -> None:
        """In a forked child, where the thread that held the lock when it was copied does not exist."""
        self._lock = threading.Lock()

    def take(self, words: int) -> Block:
        """The smallest block for at least so many words."""
        with self._lock:
            fitting = [block for block in self._free if block.capacity >= words]
            if fitting:
                block = min(fitting, key=lambda block: block.capacity)
                self._free.remove(block)
                return block
        return Block(max(1024, 1 << (words - 1).bit_length()))

    def give(self, *blocks: Block) -> None:
        """Take blocks back."""
        with self._lock:
            self._free += blocks


class Sent(threading.local):
    """Blocks that the GPU has still to read: those of the arrays that this thread's next `to_host` is computed from."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []


_pool = Pool()
_sent = Sent()


def to_device(*arrays: Int32) -> list[mx.array]:
    """The arrays, int32 [N] each, on the device: one launch of `from_host.cu`.

    They are for what this thread's next `to_host` is given, and must have been used when it has answered.
    """
    count = sum(map(len, arrays))
    block = _pool.take(count)
    _sent.blocks.append(block)
    fetched = launch("from_host", [], [*block.address, count], _grid(count), (count,), mx.int32)
    out, start = [], 0
    for array in arrays:
        block.words[start : start + len(array)] = array
        out.append(fetched[start : start + len(array)])
        start += len(array)
    return out


def to_host(x: mx.array) -> Callable[[], Float32]:
    """Begin to compute x, float32, and copy it to the host; what comes back waits for the numpy array."""
    few = x.size <= FEW
    block = _pool.take(x.size + 1)
    block.words[x.size] = 0
    grid = (1, THREADS) if few else _grid(x.size)
    done = launch("to_host", [x], [*block.address, x.size], grid, (1,), mx.int32)
    used, _sent.blocks = _sent.blocks, []
    mx.async_eval(done)  # type: ignore[no-untyped-call]

    def wait() -> Float32:
        if not (few and _seen(block.words, x.size)):
            mx.eval(done)
        found = block.words[: x.size].view(np.float32).reshape(x.shape).copy()
        _pool.give(block, *used)
        return found

    return wait


def _seen(words: Int32, place: int) -> bool:
    """Whether there is something at that place within the time that it is watched."""
    end = time.perf_counter() + WATCHED
    while not words[place]:
        if time.perf_counter() > end:
            return False
        os.sched_yield()  # lets another thread have Python's lock; `time.sleep(0)` takes a timer's 0.06 ms
    return True


def _grid(count: int) -> tuple[int, int]:
    return -(-count // THREADS), THREADS
