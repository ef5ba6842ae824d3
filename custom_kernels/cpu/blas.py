"""A real BLAS for the matrix products of MLX's own CPU ops on Linux, whose wheel brings a reference BLAS.

`activate()` must run before the first import of `mlx.core`: it loads a small library that defines `cblas_sgemm` and
`cblas_dgemm` for the whole process, and the dynamic linker binds MLX to the first definition it finds. They pass on
to OpenBLAS from the package `scipy-openblas32`, whose own names carry a prefix. Without that package, on macOS, or
where `mlx.core` is already there, nothing happens and MLX keeps its own.
"""

import ctypes
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).with_name("libmlx_embed_blas.so")

_loaded: list[Any] = []
_why = "activate() has not been called."


def activate(threads: int | None = None) -> bool:
    """Put OpenBLAS in the place of MLX's reference BLAS, if that can still be done; never raises.

    It uses so many threads, or as many as its own variables or the machine say.
    """
    global _why
    if not _loaded:
        _why = _load(threads)
    return active()


def active() -> bool:
    """Whether matrix products of MLX's CPU ops go to OpenBLAS in this process."""
    return bool(_loaded)


def why_inactive() -> str:
    """A sentence that says why MLX keeps its own BLAS and what to do, or "" where it does not."""
    return "" if _loaded else _why


def calls() -> int:
    """How many products have gone through so far."""
    return int(_loaded[0].mlx_embed_blas_calls()) if _loaded else 0


def num_threads() -> int:
    """How many threads OpenBLAS uses, which is loaded to ask; 0 where it is not there."""
    return int(_loaded[0].mlx_embed_blas_threads()) if _loaded else 0


def _load(threads: int | None) -> str:
    if sys.platform != "linux":
        return "MLX has a BLAS of its own on this platform."
    if "mlx.core" in sys.modules:
        return "mlx.core was imported first; import mlx_embed before it."
    if not LIBRARY.exists():
        return "The BLAS shim was not built; with a C++17 compiler installed, run: pip install -e ."
    spec = importlib.util.find_spec("scipy_openblas32")
    folders = [Path(folder) / "lib" for folder in (spec.submodule_search_locations or [])] if spec else []
    found = [path for folder in folders for path in sorted(folder.glob("libscipy_openblas*.so"))]
    if not found:
        return "There is no OpenBLAS for MLX's CPU ops; run: pip install scipy-openblas32"
    try:
        shim: Any = ctypes.CDLL(str(LIBRARY), mode=os.RTLD_GLOBAL | os.RTLD_NOW)
        shim.mlx_embed_blas.argtypes = [ctypes.c_char_p, ctypes.c_int]
        shim.mlx_embed_blas.restype = None
        shim.mlx_embed_blas_calls.restype = ctypes.c_long
        shim.mlx_embed_blas(os.fsencode(found[0]), threads or 0)
    except (OSError, AttributeError) as error:
        return f"OpenBLAS could not be loaded for MLX's CPU ops: {error}"
    _loaded.append(shim)
    return ""
