"""Compiles and runs what `custom_kernels.cuda` would launch. What it means: see the package's docstring."""

import atexit
import ctypes
import importlib
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cuda
from custom_kernels.cuda import launch as launching

FOLDER = Path(__file__).parent
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
# No contraction: it hides what is rounded where. No fortified longjmp: it takes a change of stacks for a fault.
FLAGS = ["-std=c++20", "-O1", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-w", "-I", str(FOLDER)]
# Every load and store calls a function before: runtime.cpp's, and no sanitizer's. g++ calls it for a vector as a whole.
# So it is with an index into an array whose size is known, as those in registers.
CHECKED = ["-fsanitize=thread,bounds", "-nostdlib", "-fno-strict-aliasing"]
CLANG = "clang" in Path(COMPILER or "").name
if not CLANG:
    CHECKED += ["-fno-tree-sra", "-fno-ipa-sra"]
# Products of this architecture.
PRODUCTS = importlib.import_module("custom_kernels.cuda.products")
# Their functions have their names.
ATTENTION = importlib.import_module(cuda.attention.__module__)
ATTENTION_HOPPER = importlib.import_module("custom_kernels.cuda.attention_hopper")
LINEAR_FLOAT = importlib.import_module("custom_kernels.cuda.linear_float")
SHORT_ENCODER = importlib.import_module(cuda.short_encoder.__module__)
MULTIPROCESSORS = 3
# Of CUDA: the threads of a block, and the bytes that a block of Hopper has.
MOST_THREADS, MOST_SHARED = 1024, 232448
# By kernel, the arrays that are whole by the docstrings of their ops, and not slices that may begin at any element.
WHOLE = {"attention": r"cosines|sines", "short_encoder": r"x|w\d*"}

BOUNDS = r"(?:__cluster_dims__\(CLUSTER, 1, 1\)\s*)?(?:__launch_bounds__\(([^,)]*)[^)]*\)\s*)?"
KERNEL = re.compile(rf'extern "C" __global__ void {BOUNDS}(\w+)\((.*?)\) \{{', re.S)
SHARED = re.compile(r"(extern )?__shared__ (?:alignas\((\d+)\) )?([^;\[]*?[ *])(\w+\[[^;]*);")
STATEMENT = re.compile(r"^#define (\w+) (asm.*)$", re.M)
ASSEMBLY = re.compile(r'\basm(?: volatile)?\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+)(.*?)\);', re.S)


# What an array of a launch is, as block.h has it.
INPUT, OUTPUT, BOTH = range(3)


class EmulationError(Exception):
    """What the emulation found wrong in a launch."""


class Given(ctypes.Structure):
    """An array as the compiled launch takes it."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_int64),
        ("element", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("kind", ctypes.c_int64),
    )


def unavailable() -> str | None:
    """Why the emulation cannot run here, or None."""
    if sys.platform != "linux":
        return "the emulation runs on Linux"
    return None if COMPILER else "the emulation needs g++ or clang++"


@contextmanager
def emulated_cuda(seed: int = 0, edit: Callable[[str], str] = lambda source: source) -> Iterator[None]:
    """Run kernels of `custom_kernels.cuda` in the emulation; `edit` changes their source first."""

    def launch_all(
        name: str,
        inputs: list[mx.array],
        scalars: list[int | float],
        grid: tuple[int, int],
        outputs: list[tuple[tuple[int, ...], mx.Dtype]],
        types: Mapping[str, mx.Dtype],
        constants: Mapping[str, int],
        macros: Mapping[str, str],
        shared_memory: int = 0,
    ) -> list[mx.array]:
        variant = (tuple(types.items()), tuple(constants.items()), tuple(macros.items()))
        source = edit(launching.source(name, *variant))
        return _launch(source, inputs, scalars, grid, outputs, shared_memory, seed)

    with pytest.MonkeyPatch.context() as patch:
        for module in (launching, PRODUCTS, SHORT_ENCODER):
            patch.setattr(module, "launch_all", launch_all)
        on_hopper(patch)
        yield


def on_hopper(patch: pytest.MonkeyPatch) -> None:
    """Let launchers believe in a small Hopper GPU, which is MLX's CPU."""
    for module in (PRODUCTS, SHORT_ENCODER, ATTENTION_HOPPER, LINEAR_FLOAT):
        patch.setattr(module, "multiprocessors", lambda: MULTIPROCESSORS)
    patch.setattr(PRODUCTS, "row_pieces", row_pieces)
    for module in (PRODUCTS, ATTENTION):
        patch.setattr(module, "architecture", lambda: "sm_90")
    patch.setattr(mx, "gpu", mx.cpu)


def row_pieces(width: int, rows: int) -> mx.array:
    """What hopper.h has in the place of a tensor map."""
    return mx.array([width, rows, *[0] * 30], dtype=mx.uint32)


def _launch(
    source: str,
    inputs: list[mx.array],
    scalars: list[int | float],
    grid: tuple[int, int],
    outputs: list[tuple[tuple[int, ...], mx.Dtype]],
    shared_memory: int,
    seed: int,
) -> list[mx.array]:
    """One launch, at once. Outputs start as NaN."""
    blocks, threads = grid
    fits = 0 < threads <= MOST_THREADS and 0 < blocks * threads <= launching.MAX_THREADS
    if not fits or threads % 32:
        raise EmulationError(f"a grid of {blocks} blocks of {threads} threads")
    if shared_memory > MOST_SHARED:
        raise EmulationError(f"{shared_memory} bytes of shared memory for a block")
    bounds, name, parameters = _kernel(source)
    pointers = [parameter for parameter in parameters if "*" in parameter]
    names = [re.search(r"\w+$", pointer)[0] for pointer in pointers]
    arrays = [_numpy(x) for x in inputs]
    results = [np.full(shape, 2 ** (8 * dtype.size) - 1, f"u{dtype.size}") for shape, dtype in outputs]
    if len(names) != len(arrays) + len(results):
        raise EmulationError(f"the kernel has {len(names)} arrays, the launch {len(arrays)} and {len(results)} outputs")
    given = (Given * len(names))()
    chance = random.Random(seed)
    for i, array in enumerate([*arrays, *results]):
        slice_of_one = seed % 2 and i < len(arrays) and not re.fullmatch(WHOLE.get(name, ""), names[i])
        offset = array.itemsize * chance.randrange(1, 16 // array.itemsize) if slice_of_one else 0
        kind = OUTPUT if i >= len(arrays) else INPUT if "const" in pointers[i] else BOTH
        given[i] = (names[i].encode(), array.ctypes.data, array.nbytes, array.itemsize, offset, kind)
    whole = [x for x in scalars if not isinstance(x, float)]
    real = [x for x in scalars if isinstance(x, float)]
    library = compiled(in_cpp(source))
    kinds = ctypes.c_char_p.in_dll(library, "scalars").value
    if kinds != b"".join(b"f" if isinstance(x, float) else b"i" for x in scalars):
        raise EmulationError(f"the kernel's scalars are {kinds}, the launch's {scalars}")
    if bounds and ctypes.c_int.in_dll(library, "most_threads").value < threads:
        raise EmulationError(f"{threads} threads in a block, of which the kernel allows fewer")
    error = _runtime().launch(
        library.emulated_kernel,
        given,
        len(given),
        (ctypes.c_int * len(whole))(*whole),
        len(whole),
        (ctypes.c_float * len(real))(*real),
        len(real),
        ctypes.c_uint(blocks),
        ctypes.c_uint(threads),
        ctypes.c_uint(
            int(re.search(r"constexpr int CLUSTER = (\d+);", source)[1]) if "__cluster_dims__" in source else 1
        ),
        ctypes.c_size_t(shared_memory),
        # Blocks that wait for each other are all there at once.
        "atomicAdd(" in source,
        ctypes.c_uint64(seed),
    )
    if error:
        raise EmulationError(error.decode())
    return [mx.array(result).view(dtype) for result, (_, dtype) in zip(results, outputs, strict=True)]


def in_cpp(source: str) -> str:
    """A kernel's source with calls in place of PTX and of shared memory, and its call by runtime.cpp after it."""
    bounds, name, parameters = _kernel(source)
    for macro, statement in STATEMENT.findall(source):
        source = re.sub(rf"\b{macro};", lambda _, statement=statement: f"{statement};", source)
    source = STATEMENT.sub("", source)
    source = SHARED.sub(_shared, ASSEMBLY.sub(_instruction, source))
    arrays, wholes, reals, kinds, arguments = 0, 0, 0, "", []
    for parameter in parameters:
        kind = re.sub(r"\w+$", "", parameter).strip()
        if "*" in kind:
            arguments.append(f"static_cast<{kind}>(emulation::array({arrays}))")
            arrays += 1
        elif kind == "float":
            arguments.append(f"emulation::number({reals})")
            reals, kinds = reals + 1, kinds + "f"
        else:
            arguments.append(f"emulation::integer({wholes})")
            wholes, kinds = wholes + 1, kinds + "i"
    return f"""#include "device.h"
#line 1 "source"
{source}
extern "C" const char* const scalars = "{kinds}";
extern "C" const int most_threads = {bounds or MOST_THREADS};
extern "C" void emulated_kernel() {{ {name}({", ".join(arguments)}); }}
"""


def _kernel(source: str) -> tuple[str | None, str, list[str]]:
    """Of a kernel: the threads that a block may have, its name and its parameters."""
    bounds, name, parameters = KERNEL.search(source).groups()
    for macro, value in re.findall(r"^#define (\w+) (.*)$", source, re.M):
        parameters = re.sub(rf"\b{macro}\b", value, parameters)
    return bounds, name, [parameter.strip() for parameter in parameters.split(",")]


def _instruction(statement: "re.Match[str]") -> str:
    """The call that stands for an asm statement, on as many lines."""
    text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', statement[1])).replace(r"\n", " ")
    instructions = [part.strip(" {}") for part in text.split(";")]
    words = [
        re.sub(r"^(\w+: |@!?\w+ )", "", part).split()[0]
        for part in instructions
        if part and not part.startswith(".reg")
    ]
    if not words:  # it tells the compiler what it does not know, which here it does
        return ";" + "\n" * statement[0].count("\n")
    operands, rest = [], statement[2]
    while start := re.search(r'"[^"]*"\s*\(', rest):
        depth, end = 1, start.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(rest[end], 0)
            end += 1
        operands.append(rest[start.end() : end - 1])
        rest = rest[end:]
    operands += re.findall(r"(?<=[ ,])\d+(?=[,;])", text)
    name = "_".join(words).replace("::", "_").replace(".", "_")
    return f"ptx::{name}({', '.join(operands)});" + "\n" * statement[0].count("\n")


def _shared(declaration: "re.Match[str]") -> str:
    """References to shared memory in place of what declares it."""
    dynamic, alignment, kind, names = declaration.groups()
    if dynamic:
        return f"{kind}* const {names.split('[')[0]} = static_cast<{kind}*>(emulation::dynamic_shared());"
    found = []
    for part in re.split(r",(?![^\[]*\])", names):
        name, sizes = re.fullmatch(r"\s*(\w+)(\[.*\])\s*", part, re.S).groups()
        array = f"{kind}{sizes}"
        place = f'emulation::shared("{name}", sizeof({array}), {alignment or f"alignof({kind})"}, sizeof({kind}))'
        found.append((name, f"*static_cast<{kind}(*){sizes}>({place})", f"{kind}(&{name}){sizes}"))
    if declaration.string[declaration.start() - 1] == "\n":  # outside of functions, and so another one in each block
        return "\n".join(f"#define {name} ({array})" for name, array, _ in found)
    return " ".join(f"{reference} = {array};" for _, array, reference in found)


@cache
def compiled(source: str) -> ctypes.CDLL:
    """The source as a loaded library, compiled once a process."""
    return _built(source, *CHECKED, _runtime()._name)


@cache
def _runtime() -> ctypes.CDLL:
    """runtime.cpp, which the kernels' libraries are linked with. Others, such as Metal's, do not find its names."""
    library = _built((FOLDER / "runtime.cpp").read_text(), "-O2")
    library.launch.restype = ctypes.c_char_p
    return library


def _built(source: str, *arguments: str) -> ctypes.CDLL:
    file = _folder() / f"{next(_numbers)}.cpp"
    file.write_text(source)
    command = [COMPILER, *FLAGS, file, *arguments, "-o", file.with_suffix(".so")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise EmulationError(f"the source does not compile:\n{run.stderr}")
    return ctypes.CDLL(str(file.with_suffix(".so")))


_numbers = itertools.count()


@cache
def _folder() -> Path:
    """This process's own, gone with it."""
    folder = tempfile.mkdtemp(prefix="mlx-embed-cuda-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _numpy(x: mx.array) -> np.ndarray:
    """The array's elements, 16-bit floats as their bits."""
    return np.ascontiguousarray(x.view(mx.uint16) if x.dtype in (mx.float16, mx.bfloat16) else x)
