"""What a verdict about a kernel depends on: the machine, and this package's code."""

import os
import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import mlx.core as mx

from custom_kernels.backends import mlx_version
from custom_kernels.cuda import driver, nvrtc


def machine() -> tuple[str, ...]:
    """MLX, the system, the device, its driver and whatever compiles for it: what may make a kernel slow, or wrong."""
    device = mx.device_info()
    found = [mlx_version(), platform.platform(), str(device.get("device_name")), str(device.get("architecture"))]
    if mx.cuda.is_available():
        found += [str(driver.version()), nvrtc.version(), "TF32" if tf32() else "float32"]
    return tuple(found)


def tf32() -> bool:
    """Whether MLX's products of float32 on CUDA are in TF32, as they are unless the environment says otherwise."""
    return os.environ.get("MLX_ENABLE_TF32") != "0"


@cache
def sources() -> str:
    """A hash of this package's code."""
    folder = Path(__file__).parents[1]
    return hash_of(sorted(path for kind in ("py", "metal", "cu", "cuh") for path in folder.rglob(f"*.{kind}")))


def hash_of(paths: Iterable[Path]) -> str:
    """A hash of what is in files, one after the other."""
    import hashlib

    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
