"""Which kernels have agreed with their references on this machine.

An empty file for each variant in `mlx-embed/trusted` in the user's cache folder, named by a hash of all that the answer
depends on. The folder may be deleted at any time: what is not known is checked again.
"""

import contextlib
import platform
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx

from custom_kernels.backends import mlx_version
from custom_kernels.choice.tune import cache_folder
from custom_kernels.cuda import driver, nvrtc


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

    name = hashlib.sha256(repr((kernel, _machine(), _sources())).encode()).hexdigest()
    return cache_folder() / "trusted" / name


@cache
def _machine() -> tuple[str, ...]:
    """The device, its driver and whatever compiles for it: what may make a right kernel wrong."""
    device = mx.device_info()
    found = [mlx_version(), platform.platform(), str(device.get("device_name")), str(device.get("architecture"))]
    if mx.cuda.is_available():
        found += [str(driver.version()), nvrtc.version()]
    return tuple(found)


@cache
def _sources() -> str:
    """A hash of this package's code."""
    import hashlib

    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for kind in ("py", "metal", "cu", "cuh") for path in folder.rglob(f"*.{kind}")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
