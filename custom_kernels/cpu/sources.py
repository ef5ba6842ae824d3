"""The C++ sources of the CPU kernels and how each is compiled: the one list for setup.py and the scripts.

It imports nothing of this package, since a build must not: setup.py runs it by its path. As a program it prints a line
for each source, its name and flags, for the architecture that is named or this machine's:

    python custom_kernels/cpu/sources.py aarch64
"""

import platform
import sys
import zlib
from pathlib import Path

FOLDER = Path(__file__).with_name("native")
SOURCES = (
    "avx512.cpp",
    "avx512_bf16.cpp",
    "avx512_vnni.cpp",
    "amx_bf16.cpp",
    "amx_int8.cpp",
    "avx2.cpp",
    "avx2_vnni.cpp",
    "neon_bf16.cpp",
    "neon_dot.cpp",
    "neon_bfmmla.cpp",
    "neon_smmla.cpp",
    "baseline.cpp",
    "choose.cpp",
    "threads.cpp",
    "ops.cpp",
    "pieces.cpp",
    "subwords.cpp",
)
BLAS = "blas.cpp"
SUFFIXES = (".h", ".inl", ".cpp")
FLAGS = ("-std=c++17", "-pthread", "-Wno-psabi", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
_AVX2 = ("-mavx2", "-mfma")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", *_AVX2)
INSTRUCTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "avx512.cpp": _AVX512,
        "avx512_bf16.cpp": (*_AVX512, "-mavx512bf16"),
        "avx512_vnni.cpp": (*_AVX512, "-mavx512vnni"),
        "amx_bf16.cpp": (*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
        "amx_int8.cpp": (*_AVX512, "-mavx512vnni", "-mamx-tile", "-mamx-int8"),
        "avx2.cpp": _AVX2,
        "avx2_vnni.cpp": (*_AVX2, "-mavxvnni"),
    },
    "aarch64": {
        "neon_bf16.cpp": ("-march=armv8.2-a+bf16",),
        "neon_dot.cpp": ("-march=armv8.2-a+dotprod",),
        "neon_bfmmla.cpp": ("-march=armv8.2-a+bf16",),
        "neon_smmla.cpp": ("-march=armv8.2-a+dotprod+i8mm",),
    },
}
# What these compile to without their flags says that there is nothing: for compilers that do not know them yet.
OPTIONAL = frozenset(INSTRUCTIONS["x86_64"] | INSTRUCTIONS["aarch64"]) - {"avx512.cpp", "avx2.cpp"}
_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


def flags(source: str, machine: str) -> tuple[str, ...]:
    """What decides about the code of `source` on "x86_64" or "aarch64", beside how far it is optimised."""
    name = machine.lower()
    return FLAGS + INSTRUCTIONS.get(_NAMES.get(name, name), {}).get(source, ())


def source_hash(folder: Path = FOLDER) -> str:
    """A hash of the C++ sources in `folder`, or "" where there are none; the library carries that of its own."""
    digest = 0
    sources = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
    for path in sources:
        digest = zlib.crc32(path.name.encode() + b"\0" + path.read_bytes(), digest)
    return f"{digest:08x}" if sources else ""


if __name__ == "__main__":
    asked = sys.argv[1] if len(sys.argv) > 1 else platform.machine()
    for name in SOURCES:
        print(name, *flags(name, asked))
