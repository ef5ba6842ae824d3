"""Machine code in the container that CUDA's own tools put it into, a fatbin, compressed.

MLX hashes all bytes of a kernel at each launch: 9 us for the 44 kB of an attention, on the host of an H200. The driver
decompresses once, when it loads the kernel.
"""

import struct
import threading

from custom_kernels.cuda import driver

MAGIC = 0xBA55ED50
CUBIN = 2
BITS_64, LINUX, ZSTD, OF_ONE_GENERATION = 0x1, 0x10, 0x8000, 0x100000
LEVEL = 9

_lock = threading.Lock()
# By architecture, whether the driver takes such containers, once one was tried.
_taken: dict[str, bool] = {}


def compressed(cubin: bytes, name: str, architecture: str) -> bytes:
    """Kernel `name` for "sm_90a" or the like in a fatbin; as it is where zstandard is missing or the driver refuses."""
    try:
        import zstandard
    except ImportError:
        return cubin
    container = fatbin(zstandard.ZstdCompressor(level=LEVEL).compress(cubin), len(cubin), architecture)
    with _lock:
        if architecture not in _taken:
            _taken[architecture] = _loads(container, name)
    return container if _taken[architecture] else cubin


def _loads(container: bytes, name: str) -> bool:
    try:
        return driver.loads(container, name)
    except (RuntimeError, OSError):  # a driver that cannot even be asked
        return False


def fatbin(payload: bytes, size: int, architecture: str) -> bytes:
    """The container of a cubin of `size` bytes, which zstd has made `payload` of.

    As CUDA 13's `fatbinary --compress-mode=size` writes it: a header of 16 bytes, one of 64 for the only entry, and the
    payload, filled up to 8 bytes.
    """
    number = int(architecture.removeprefix("sm_").removesuffix("a"))
    filled = payload + bytes(-len(payload) % 8)
    flags = BITS_64 | LINUX | ZSTD | (OF_ONE_GENERATION if architecture.endswith("a") else 0)
    kinds = (CUBIN, 0x0101, 64, len(filled), len(payload), 0, 8, 1, number, 0, flags, 0, size)
    entry = struct.pack("<HHIQIIHHIQQQQ", *kinds)
    return struct.pack("<IHHQ", MAGIC, 1, 16, len(entry) + len(filled)) + entry + filled
