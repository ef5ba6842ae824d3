"""Whether a model fits into what memory this process may use, said before it is loaded.

Where memory runs out in the middle, the libraries below end the process, or wait for threads that cannot start.
"""

import resource
from collections.abc import Iterator
from math import prod
from pathlib import Path

import mlx.core as mx

from mlx_embed.checkpoint import Checkpoint, safetensors

# Of the address space, which RLIMIT_AS limits: stacks of threads and what malloc sets aside for each.
HEADROOM = 256 * 2**20
MIB = 2**20


def check(checkpoint: Checkpoint, dtype: mx.Dtype | None) -> None:
    """Raise where a model that a CPU computes in `dtype` is larger than the memory that is left to this process.

    Raises:
        MemoryError: it is.
        CheckpointError: weights that are missing or broken.
    """
    limits = dict(_left())
    if not limits:
        return
    needed = _needed(checkpoint, dtype)
    for name, left in limits.items():
        wanted = needed + (HEADROOM if name == "RLIMIT_AS" else 0)
        if left < wanted:
            raise MemoryError(
                f"Loading {checkpoint.folder} needs about {wanted / MIB:.0f} MiB, and {name} leaves this process "
                f"{max(left, 0) / MIB:.0f} MiB; raise that limit, or take a smaller model."
            )


def _needed(checkpoint: Checkpoint, dtype: mx.Dtype | None) -> int:
    """The bytes of the files, which are read whole, and of the weights as they are computed with."""
    tensors = safetensors.read_headers(checkpoint.weights, float64=checkpoint.architecture.LAYOUT == "table")
    size = sum(path.stat().st_size for path in safetensors.files(checkpoint.weights))
    quantization = checkpoint.config.get("quantization")
    bits = quantization.get("bits") if isinstance(quantization, dict) else None
    for tensor in tensors:
        numbers = prod(tensor.shape)
        if tensor.dtype == "U32" and bits in (4, 8):
            numbers = numbers * 32 // bits
        size += numbers * (4 if dtype is None else dtype.size)
    return size


def _left() -> Iterator[tuple[str, int]]:
    """What limits this process, and the bytes that it leaves."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    try:
        if soft != resource.RLIM_INFINITY:
            yield "RLIMIT_AS", soft - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):  # not on Linux
        return
    for group in groups:
        _, controllers, place = group.split(":", 2)
        if controllers in ("", "memory"):
            root = Path("/sys/fs/cgroup") / controllers
            inside = root / place.lstrip("/")
            for folder in (inside, *inside.parents):
                if not folder.is_relative_to(root):
                    break
                yield from _left_of_group(folder, ("memory.max", "memory.current", "inactive_file"))
                yield from _left_of_group(
                    folder, ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                )


def _left_of_group(folder: Path, names: tuple[str, str, str]) -> Iterator[tuple[str, int]]:
    limit, used, cached = names
    try:
        most, now = (int((folder / name).read_text()) for name in (limit, used))
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield f"{folder / limit}", most - now + int(statistics[cached])
    except (OSError, ValueError, KeyError):  # no such group, or "max"
        return
