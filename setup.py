"""Builds the CPU kernels beside `pip install`: an optional shared library with a plain C interface.

Without a C++17 compiler the install succeeds and the package runs on MLX's own ops.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# What is compiled and how, from a file that the scripts read too; importing the package would import MLX.
NATIVE = run_path("custom_kernels/cpu/sources.py")
FOLDER = Path("custom_kernels/cpu/native")
KERNELS = "custom_kernels.cpu.libmlx_embed_cpu"
BLAS = "custom_kernels.cpu.libmlx_embed_blas"
OPTIMISED = ("-O3", "-fPIC", "-fvisibility=hidden")


def compiler() -> list[str]:
    """$CXX, or the first C++ compiler there is."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise CompileError("no C++ compiler found: the CPU kernels are left out")


class Library(build_ext):
    """Compiles each source for its instruction set, and links them without Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """A plain library's name, the same for every Python."""
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Compile and link; a failure leaves an optional extension out."""
        cxx = compiler()
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(self.build_temp)
        work.mkdir(parents=True, exist_ok=True)
        objects = []
        for source in map(Path, ext.sources):
            flags = [*OPTIMISED, *NATIVE["flags"](source.name, platform.machine())]
            if source.name == "ops.cpp":
                flags.append(f'-DSOURCE_HASH="{NATIVE["source_hash"](FOLDER)}"')
            objects.append(str(work / f"{source.stem}.o"))
            rest = ["-c", str(source), "-o", objects[-1]]
            try:
                self.run_tool([*cxx, *flags, *rest])
            except CompileError:
                if source.name not in NATIVE["OPTIONAL"]:
                    raise
                self.run_tool([*cxx, *OPTIMISED, *NATIVE["FLAGS"], *rest])
        # Linked under another name first: replacing a library in place would crash processes that have it loaded.
        fresh = target.with_suffix(".new")
        self.run_tool([*cxx, "-shared", "-pthread", *objects, "-o", str(fresh)])
        fresh.replace(target)

    def run_tool(self, command: list[str]) -> None:
        """Run a compiler; raises CompileError."""
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CompileError(f"{command[0]} failed: {error}") from error


class Wheel(bdist_wheel):
    """The library knows nothing of Python, so one wheel serves every version."""

    def get_tag(self) -> tuple[str, str, str]:
        """Any Python 3, this platform."""
        return "py3", "none", super().get_tag()[2]


extensions = [
    Extension(KERNELS, [str(FOLDER / name) for name in NATIVE["SOURCES"]], optional=True),
    Extension(BLAS, [str(FOLDER / NATIVE["BLAS"])], optional=True),
]
setup(ext_modules=[] if sys.platform == "win32" else extensions, cmdclass={"build_ext": Library, "bdist_wheel": Wheel})
