"""Which kernels have agreed with their references on this machine.

An empty file for each variant in `mlx-embed/trusted` in the user's cache folder, named by a hash of all that the answer
depends on. The folder may be deleted at any time: what is not known is checked again.
"""

import contextlib
from pathlib import Path
from typing import Any

from custom_kernels.choice.machine import machine, sources
from custom_kernels.choice.tune import cache_folder


def known(*kernel: Any) -> bool:
    """Whether `remember` has been told of this kernel, in whatever process. Its parts need a stable `repr`."""
    try:
        return _file(kernel).exists()
    except (OSError, RuntimeError):  # no such folder, or no home
        return False


def remember(*kernel: Any) -> None:
    """Let `known` say yes; where the folder cannot be written, nothing is remembered."""
    with contextlib.suppress(OSError, RuntimeError):
        file = _file(kernel)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def _file(kernel: tuple[Any, ...]) -> Path:
    import hashlib

    name = hashlib.sha256(repr((kernel, machine(), sources())).encode()).hexdigest()
    return cache_folder() / "trusted" / name
