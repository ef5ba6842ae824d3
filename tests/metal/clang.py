"""What clang says of the sources that MLX generates for Metal kernels, nearly as they are.

It reads them as C++14, the language of Metal 3, with real address spaces and vectors, against `declarations.h`: close
to what Apple's compiler does, and not the same.
"""

import importlib.util
import os
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from custom_kernels.metal.launch import ELEMENTS
from tests.metal import kept

DECLARATIONS = Path(__file__).with_name("declarations.h")
# A GPU's target, whose code has address spaces and no registers to run out of. Loops are unrolled where a pragma tells
# it to, and nowhere else: short ones would be in any case, and Apple's compiler need not do the same.
FLAGS = ["-target", "spir64-unknown-unknown", "-std=c++14", "-O2", "-fno-unroll-loops", "-Werror", "-S", "-emit-llvm"]
# What clang only warns of is a fault: names that hide others, numbers that are read before they are written or become
# other ones by conversion, and loops that are to be unrolled and are not.
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Wno-unknown-attributes"]


@cache
def command() -> list[str] | None:
    """The clang of the package `ziglang`, which is the same everywhere, or None."""
    found = importlib.util.find_spec("ziglang")
    if found is None or found.origin is None:
        return None
    return [str(Path(found.origin).with_name("zig")), "clang"]


def faults(source: str) -> str:
    """What clang has against the source, or against the code it makes of it; empty where that is nothing.

    The code may keep nothing on the stack, which a GPU has in its slowest memory, and may not choose an element of a
    vector at run time, for which the vector goes there. Either is what a loop over matrices comes to that is not
    unrolled. And it may compute nothing in double precision, which Metal does not have.
    """
    clang = command()
    assert clang is not None
    key = (Path(__file__).read_text(), DECLARATIONS.read_text(), *clang, *FLAGS, *WARNINGS, _version())
    return kept.text(key, source, lambda: _faults([*clang, *FLAGS, *WARNINGS], source))


def _faults(compile: list[str], source: str) -> str:
    source = re.sub(r"#include <metal_\w+>", "", source)
    source = re.sub(r"^template \[\[host_name.*?\]\] \[\[kernel\]\]", "template", source, flags=re.M)
    source = re.sub(r"\b(\w+)\.at\[", r"\1[", source.replace(ELEMENTS, ""))
    # Of arrays in a kernel, clang wants them static.
    source = re.sub(r"^(threadgroup \w+ \w+\[)", r"static \1", source, flags=re.M)
    with tempfile.NamedTemporaryFile("w", suffix=".cpp") as file:
        file.write(f'#include "{DECLARATIONS}"\n#line 1 "generated source"\n{source}')
        file.flush()
        run = subprocess.run([*compile, "-o", "-", file.name], capture_output=True, text=True, check=False)
    if run.returncode:
        return run.stderr
    spilled = re.findall(r"^.* = alloca .*$", run.stdout, re.M)
    indexed = re.findall(r"^.*(?:insert|extract)element .*, i\d+ %[\w.]+$", run.stdout, re.M)
    doubles = re.findall(r"^.*\bdouble\b.*$", run.stdout, re.M)
    return "".join(f"{line.strip()}\n" for line in spilled + indexed + doubles)


@cache
def _version() -> str:
    clang = command()
    assert clang is not None
    return subprocess.run([*clang, "--version"], capture_output=True, text=True, check=True).stdout


def unavailable() -> str | None:
    """Why clang cannot be asked, or None."""
    return None if command() or os.environ.get("CI") else "needs the package ziglang"
