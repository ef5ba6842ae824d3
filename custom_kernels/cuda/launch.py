"""The launch of a CUDA kernel: its source put together, compiled for this GPU, and handed to MLX."""

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np

from custom_kernels.cuda.ahead import rehearsed
from custom_kernels.cuda.fatbin import compressed
from custom_kernels.cuda.nvrtc import cubin

INCLUDE = re.compile(r'#include "(shared/\w+\.cuh)"\n')
MAX_THREADS = 2**31 - 1

Scalar = int | float
Value = TypeVar("Value")
Pairs = tuple[tuple[str, Value], ...]

# The machine code of this process, or who is at it, by the arguments of `compiled`.
_codes: dict[tuple[Any, ...], "Future[bytes]"] = {}


def launch(
    name: str,
    inputs: list[mx.array],
    scalars: list[Scalar],
    grid: tuple[int, int],
    shape: tuple[int, ...],
    dtype: mx.Dtype,
    types: Mapping[str, mx.Dtype] | None = None,
    constants: Mapping[str, int] | None = None,
    macros: Mapping[str, str] | None = None,
    shared_memory: int = 0,
) -> mx.array:
    """One launch of kernel `name` with (blocks, threads a block), lazy like every op: its output."""
    outputs = [(shape, dtype)]
    types, constants, macros = types or {}, constants or {}, macros or {}
    return launch_all(name, inputs, scalars, grid, outputs, types, constants, macros, shared_memory)[0]


def launch_all(
    name: str,
    inputs: list[mx.array],
    scalars: list[Scalar],
    grid: tuple[int, int],
    outputs: list[tuple[tuple[int, ...], mx.Dtype]],
    types: Mapping[str, mx.Dtype],
    constants: Mapping[str, int],
    macros: Mapping[str, str],
    shared_memory: int = 0,
) -> list[mx.array]:
    """As `launch`, of a kernel with several outputs, each a shape and a dtype."""
    blocks, threads = grid
    if blocks * threads > MAX_THREADS:
        raise NotImplementedError(f"This batch is more than one launch of the CUDA kernel of {name} takes.")
    key = (name, tuple(types.items()), tuple(constants.items()), tuple(macros.items()))
    if (wanted := rehearsed()) is not None:
        wanted[key] = partial(compiled, *key)
        return [mx.zeros(shape, dtype) for shape, dtype in outputs]
    out: list[mx.array] = mx.fast.precompiled_cuda_kernel(
        name=name,
        compiled_source=compiled(*key),
        inputs=inputs,
        output_shapes=[shape for shape, _ in outputs],
        output_dtypes=[dtype for _, dtype in outputs],
        # MLX refuses a float that float32 cannot hold exactly.
        scalars=[float(np.float32(x)) if isinstance(x, float) else x for x in scalars],
        grid=(blocks * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        shared_memory=shared_memory,
        ensure_row_contiguous=True,
        stream=mx.gpu,
    )
    return out


def at_once(count: int, blocks: int, threads: int) -> Iterator[slice]:
    """All of `count`, as many at a time as one launch takes where each has so many blocks."""
    most = max(MAX_THREADS // (blocks * threads), 1)
    for first in range(0, count, most):
        yield slice(first, min(first + most, count))


def vector(width: int, dtype: mx.Dtype, lanes: int) -> int:
    """Elements that a lane reads at once: 16 bytes at most, dividing the row, and leaving no lane idle if possible."""
    widest = 16 // dtype.size
    dividing = [v for v in (widest, widest // 2, widest // 4) if v and width % v == 0]
    return next((v for v in dividing if width % (v * lanes) == 0), dividing[0] if dividing else 1)


def compiled(name: str, types: Pairs[mx.Dtype], constants: Pairs[int], macros: Pairs[str] = ()) -> bytes:
    """Kernel `name` for these types, constants and macros, as machine code for this GPU.

    Whoever asks first compiles it, and others wait.
    """
    key = (name, types, constants, macros)
    if (code := _codes.get(key)) is not None:
        return code.result()
    own: Future[bytes] = Future()
    code = _codes.setdefault(key, own)
    if code is own:
        try:
            whole = source(name, types, constants, macros)
            # An "a" after the architecture's name allows the instructions that only this one generation has.
            target = architecture() + ("a" if "wgmma" in whole else "")
            own.set_result(compressed(cubin(whole, target), name, target))
        except BaseException as error:
            own.set_exception(error)
    return code.result()


@cache
def architecture() -> str:
    """This GPU's, "sm_90" or the like."""
    return str(mx.device_info(mx.gpu)["architecture"])


def source(name: str, types: Pairs[mx.Dtype], constants: Pairs[int], macros: Pairs[str] = ()) -> str:
    """All that is compiled for kernel `name`: the float types, what it is compiled for, and `<name>.cu`."""
    spelled = {mx.float32: "float", mx.float16: "float16", mx.bfloat16: "bfloat16"}
    lines = [f"using {alias} = {spelled[dtype]};" for alias, dtype in types]
    lines += [f"constexpr {type(value).__name__} {alias} = {str(value).lower()};" for alias, value in constants]
    lines += [f"#define {alias} {value}" for alias, value in macros]
    return "\n".join([kernel_source("shared/floats.cuh"), *lines, kernel_source(f"{name}.cu")])


@cache
def kernel_source(file: str) -> str:
    """A file of this folder, such as "attention.cu", with the files of `shared` that it includes in their places."""
    text = (Path(__file__).parent / file).read_text(encoding="ascii")
    return INCLUDE.sub(lambda line: kernel_source(line[1]), text)
