"""Compiles and runs the source that MLX generates for a Metal kernel. What it means: see the package's docstring."""

import ctypes
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from custom_kernels.metal.launch import kernel as built
from tests.metal import kept

HEADER, RUNTIME = (Path(__file__).with_name(name) for name in ("emulation.h", "runtime.cpp"))
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
# No fortified longjmp: it takes a change of stacks for a fault. No contraction: it hides what is rounded where.
FLAGS = ["-std=c++20", "-O1", "-fPIC", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-w"]
# A half's operations round, each of them: nothing is kept in float between two.
if "clang" not in Path(COMPILER or "").name:
    FLAGS.append("-fexcess-precision=16")
# The freedoms of a device: products and sums contracted, and what emulation.h does where it is LOOSE.
LOOSE_FLAGS = [*FLAGS, "-DLOOSE=1", "-march=native", "-ffp-contract=fast", "-fexpensive-optimizations"]
# Of Metal: the buffers of a kernel, and the threads of a threadgroup. MLX takes a grid as numbers of int.
MOST_BUFFERS, MOST_THREADS, MOST_GRID = 31, 1024, 2**31 - 1
# What an output holds where nothing is written; of an int32, an absurd number.
NAN = {mx.float32: 0x7FC00000, mx.int32: 0x7FC00000, mx.float16: 0x7E00, mx.bfloat16: 0x7FC0}


class EmulationError(Exception):
    """What the emulation found wrong in a run."""


class Buffer(ctypes.Structure):
    """An array as the compiled launch takes it."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("dims", ctypes.c_int64),
        ("output", ctypes.c_int64),
    )


def unavailable() -> str | None:
    """Why the emulation cannot run here, or None."""
    if sys.platform != "linux":
        return "the emulation runs on Linux; a Mac has the real thing"
    if mx.cuda.is_available():
        return "MLX's CUDA build makes no Metal source"
    return None if COMPILER else "the emulation needs g++ or clang++"


# Where a kernel's header ends.
BODY = "\n// body\n"


@contextmanager
def emulated_metal(
    seed: int = 0,
    edit: Callable[[str], str] = lambda source: source,
    *,
    run: bool = True,
    loose: bool | None = None,
) -> Iterator[list[str]]:
    """Run kernels of `custom_kernels.metal` in the emulation; `edit` changes header and body first.

    Gives the list to which the source that MLX generates for each launch is added. Unless `run`, that is all: results
    are zeros. The device is `loose`, or takes no freedom; None is loose for odd seeds.
    """
    loose = seed % 2 == 1 if loose is None else loose
    sources: list[str] = []
    build = mx.fast.metal_kernel

    def emulated(
        *, source: str, input_names: list[str], output_names: list[str], header: str = "", **options: Any
    ) -> Callable[..., Any]:
        header, source = edit(f"{header}{BODY}{source}").split(BODY)
        kernel = build(source=source, input_names=input_names, output_names=output_names, header=header, **options)

        def call(*, inputs: list[mx.array], **rest: Any) -> list[mx.array]:
            for name, value in rest.get("template", []):
                # MLX makes the function's name of them; before 0.32.4 a minus sign got into it.
                if not isinstance(value, mx.Dtype) and value < 0:
                    raise EmulationError(f"the template's {name} is negative: {value}")
            sources.append(generated(kernel, inputs, rest))
            if not run:
                shapes = zip(rest["output_shapes"], rest["output_dtypes"], strict=True)
                return [mx.zeros(shape, dtype=dtype) for shape, dtype in shapes]
            return launch(sources[-1], input_names, output_names, seed, loose, inputs=inputs, **rest)

        return call

    built.cache_clear()
    mx.fast.metal_kernel = emulated
    try:
        yield sources
    finally:
        mx.fast.metal_kernel = build
        built.cache_clear()


def launch(
    source: str,
    input_names: list[str],
    output_names: list[str],
    seed: int,
    loose: bool = False,
    *,
    inputs: list[mx.array],
    **call: Any,
) -> list[mx.array]:
    """One launch of a generated source, eagerly: outputs start as NaN, and inputs at any element of their memory."""
    library = compiled(in_cpp(source), loose)
    arrays = {}
    for name, x in zip(input_names, inputs, strict=True):
        arrays[name] = _somewhere(_numpy(x))
        arrays[f"{name}_shape"] = np.array(x.shape, dtype=np.int32)
    for name, shape, dtype in zip(output_names, call["output_shapes"], call["output_dtypes"], strict=True):
        arrays[name] = np.full(shape, NAN[dtype], dtype={2: np.uint16, 4: np.uint32}[dtype.size])
    names = ctypes.c_char_p.in_dll(library, "buffer_names").value.decode().split()
    _check_limits(len(names), call["grid"], call["threadgroup"])
    buffers = (Buffer * len(names))(
        *(Buffer(n.encode(), arrays[n].ctypes.data, arrays[n].size, arrays[n].ndim, n in output_names) for n in names)
    )
    sizes = [(ctypes.c_uint32 * 3)(*call[key]) for key in ("grid", "threadgroup")]
    library.launch.restype = ctypes.c_char_p
    error = library.launch(buffers, len(names), *sizes, ctypes.c_uint64(seed))
    if error:
        raise EmulationError(error.decode())
    return [mx.array(arrays[n]).view(dtype) for n, dtype in zip(output_names, call["output_dtypes"], strict=True)]


def generated(kernel: Any, inputs: list[mx.array], call: dict[str, Any]) -> str:
    """The source that MLX makes of this launch. Tracing for an export makes it without a Mac, and prints it."""
    sys.stdout.flush()
    stdout = os.dup(1)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
        try:
            likes = [mx.zeros(x.shape, dtype=x.dtype) for x in inputs]
            mx.export_function(lambda *_: None, lambda *xs: kernel(inputs=list(xs), verbose=True, **call), *likes)
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
        printed.seek(0)
        return printed.read().decode("ascii").split("```\n")[1]


def in_cpp(source: str) -> str:
    """The generated source with checked pointers in place of address spaces, and a launch function after it."""
    name = re.search(r"\[\[kernel\]\] void (\w+)\(", source).group(1)
    source, instantiation = re.fullmatch(
        r"(.*?\n)(?:template \[\[host_name.*?decltype\((.*)\) .*;\n+)?", source, re.S
    ).groups(name)
    source = re.sub(r"#include <metal_\w+>", "", source)
    spaces = {"device": "Device", "constant": "Constant", "threadgroup": "Threadgroup"}
    parameters = re.search(r"\[\[kernel\]\] void \w+\((.*?)\) \{", source, re.S).group(1)
    buffers, arguments = [], []
    for parameter in parameters.split(",\n"):
        kind, name = re.match(r"\s*(.*?) (\w+) \[\[", parameter).groups()
        if "buffer(" in parameter:
            const, space, element = re.fullmatch(r"(const )?(device|constant) (\w+)\*", kind).groups()
            arguments.append(f"emulation::argument<emulation::{spaces[space]}, {const or ''}{element}>({len(buffers)})")
            buffers.append(name)
        else:
            arguments.append(f"t.{name}")
    # No line comes or goes, so that a message names the line of the generated source.
    source = re.sub(r"\[\[.*?\]\]", "", source)
    source = re.sub(
        r"\b(const )?(device|constant|threadgroup) (const )?(\w+)\*",
        lambda m: f"emulation::Pointer<emulation::{spaces[m[2]]}, {'const ' if m[1] or m[3] else ''}{m[4]}>",
        source,
    )
    source = re.sub(r"\bthreadgroup (\w+) (\w+)\[(.+?)\];", r'emulation::Shared<\1, (\3)> \2{"\2"};', source)
    return f"""#include "{HEADER.name}"
using namespace metal;
#line 1 "generated source"
{source}
static void body(const emulation::Thread& t) {{ {instantiation}({", ".join(arguments)}); }}
extern "C" const char* const buffer_names = "{" ".join(buffers)}";
extern "C" const char* launch(const emulation::Buffer* given, int n, const uint* grid, const uint* threadgroup,
                              std::uint64_t seed) {{
  return emulation::dispatch(given, n, grid, threadgroup, seed, body);
}}
"""


def compiled(source: str, loose: bool = False) -> ctypes.CDLL:
    """The source as a loaded library, compiled once a machine."""
    flags = LOOSE_FLAGS if loose else FLAGS
    folder = kept.folder(HEADER.read_text(), RUNTIME.read_text(), str(COMPILER), *flags)
    runtime, library = folder / "runtime.so", folder / f"{kept.digest(source)}.so"
    if not runtime.exists():
        shutil.copy(HEADER, folder)
        # g++ takes half the time where it has the header compiled.
        _compile(HEADER.read_text(), folder, folder / "emulation.h.gch", *flags, "-x", "c++-header")
        _compile(RUNTIME.read_text(), folder, runtime, *flags, "-shared")
    if not library.exists():
        _compile(source, folder, library, *flags, "-shared", link=[runtime])
    return ctypes.CDLL(str(library))


def _compile(source: str, folder: Path, to: Path, *flags: str, link: Iterable[Path] = ()) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as work:
        (Path(work) / "source.cpp").write_text(source)
        command = [COMPILER, *flags, "-I", folder, "source.cpp", *link, "-o", "result"]
        run = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if run.returncode:
            raise EmulationError(f"the generated source does not compile:\n{run.stderr}")
        (Path(work) / "result").replace(to)


def _check_limits(buffers: int, grid: tuple[int, ...], threadgroup: tuple[int, ...]) -> None:
    """Raise where Metal, or MLX before it, would not take a launch."""
    if buffers > MOST_BUFFERS:
        raise EmulationError(f"a kernel of {buffers} buffers, where Metal has {MOST_BUFFERS}")
    if math.prod(threadgroup) > MOST_THREADS:
        raise EmulationError(f"a threadgroup of {math.prod(threadgroup)} threads, where Metal has {MOST_THREADS}")
    if min(*grid, *threadgroup) < 1 or max(grid) > MOST_GRID:
        raise EmulationError(f"a grid of {grid} threads in threadgroups of {threadgroup}")


def _somewhere(array: np.ndarray) -> np.ndarray:
    """A copy that begins at any element of its memory, as a slice of an array does."""
    offset = random.randrange(16)
    room = np.empty(offset + array.size, dtype=array.dtype)
    room[offset:] = array.reshape(-1)
    return room[offset:].reshape(array.shape)


def _numpy(x: mx.array) -> np.ndarray:
    """The array's elements, 16-bit floats as their bits."""
    return np.ascontiguousarray(x.view(mx.uint16) if x.dtype in (mx.float16, mx.bfloat16) else x)
