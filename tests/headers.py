"""What MLX compiles on a CPU includes the same headers each time, which take g++ longer than all the rest.

They are compiled once a machine, beside MLX's sources, where g++ looks first. What does not fit its options or version
it passes over.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx

HEADER = "mlx/backend/cpu/compiled_preamble.h"
# MLX's own.
FLAGS = ["-std=c++17", "-O3", "-Wall", "-fPIC"]


def precompiled(temporary: Path) -> Path | None:
    """The header, compiled for what MLX puts into this folder; None where there is none, or no g++."""
    include = Path(mx.__file__).parent / "include"
    compiler = shutil.which("g++")
    if sys.platform != "linux" or compiler is None or not (include / HEADER).is_file():
        return None
    made = temporary / "mlx" / mx.__version__ / "cpu" / f"{HEADER}.gch"
    if not made.exists() or made.stat().st_mtime < (include / HEADER).stat().st_mtime:
        made.parent.mkdir(parents=True, exist_ok=True)
        new = made.with_suffix(f".{os.getpid()}")
        command = [compiler, *FLAGS, "-I", include, "-x", "c++-header", include / HEADER, "-o", new]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        new.replace(made)
    return made
