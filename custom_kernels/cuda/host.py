"""Between numpy and the GPU through pinned host memory.

MLX puts what the host writes or reads into managed memory, whose pages then wander between host and device a fault at
a time: for a batch of 65,536 tokens that costs more than a layer of MiniLM. Here a kernel copies from and to memory
that both can reach, and MLX's arrays never leave the device.
"""

import ctypes
import threading
from collections import deque
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from custom_kernels.cuda import launch
from custom_kernels.cuda.driver import allocate_pinned

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

THREADS = 256
IN_FLIGHT = 4


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

    def give(self, block: Block) -> None:
        """Take a block back."""
        with self._lock:
            self._free.append(block)


_pool = Pool()
# What the GPU may still have to read, oldest first: an array, and the block that it is copied from.
_sent: deque[tuple[mx.array, Block]] = deque()


def to_device(*arrays: Int32) -> list[mx.array]:
    """The arrays, int32 [N] each, on the device: one launch of `from_host.cu`."""
    count = sum(map(len, arrays))
    block = _pool.take(count)
    np.concatenate(arrays, out=block.words[:count])
    fetched = launch("from_host", [], [*block.address, count], _grid(count), (count,), mx.int32)
    _sent.append((fetched, block))
    if len(_sent) > IN_FLIGHT:
        oldest, free = _sent.popleft()
        mx.eval(oldest)  # long done, as a rule
        _pool.give(free)
    ends = np.cumsum([len(array) for array in arrays])
    return [fetched[end - len(array) : end] for array, end in zip(arrays, ends.tolist(), strict=True)]


def to_host(x: mx.array) -> Callable[[], Float32]:
    """Begin to compute x, float32, and copy it to the host; what comes back waits for the numpy array."""
    block = _pool.take(x.size)
    done = launch("to_host", [x], [*block.address, x.size], _grid(x.size), (1,), mx.int32)
    mx.async_eval(done)  # type: ignore[no-untyped-call]

    def wait() -> Float32:
        mx.eval(done)
        found = block.words[: x.size].view(np.float32).reshape(x.shape).copy()
        _pool.give(block)
        return found

    return wait


def _grid(count: int) -> tuple[int, int]:
    return -(-count // THREADS), THREADS
