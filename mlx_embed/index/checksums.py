"""Checksums of many parts of files at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from zlib import crc32

from custom_kernels.cpu import settings

# Bytes below which another thread would take longer to start than to help.
_WORTH_A_THREAD = 2**21
# Pieces a thread, so that none waits long for the last.
_PIECES = 4


def checksums(parts: Sequence[Any]) -> list[int]:
    """The CRC-32 of each buffer, by as many threads as ops use: zlib lets them run at once."""
    threads = min(settings.threads(), 1 + sum(memoryview(part).nbytes for part in parts) // _WORTH_A_THREAD)
    if threads == 1:
        return [crc32(part) for part in parts]
    size = -(-len(parts) // (threads * _PIECES))
    pieces = [parts[start : start + size] for start in range(0, len(parts), size)]
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda piece: [crc32(part) for part in piece], pieces)
        return [checksum for piece in found for checksum in piece]
