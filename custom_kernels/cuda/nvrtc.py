"""CUDA C++ to machine code by NVRTC, which MLX's CUDA build has loaded already.

MLX would compile a kernel's source itself (`mx.fast.cuda_kernel`), but puts headers before it that take NVRTC some
two seconds, for every kernel in every process. Without them it takes a tenth of that, and once a machine.
"""

import contextlib
import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any


def cubin(source: str, architecture: str) -> bytes:
    """The cubin of `source` for "sm_80" or the like, kept in MLX's folder for such things, MLX_PTX_CACHE_DIR, if set.

    Raises:
        RuntimeError: what NVRTC dislikes, or that there is none.
    """
    folder = os.environ.get("MLX_PTX_CACHE_DIR")
    if not folder:
        return compile_cubin(source, architecture)
    import hashlib
    import tempfile

    key = hashlib.sha256("\0".join([source, architecture, version()]).encode()).hexdigest()
    path = Path(folder) / f"mlx-embed-{key}.cubin"
    try:
        checksum, compiled = path.read_bytes()[:32], path.read_bytes()[32:]
        if hashlib.sha256(compiled).digest() == checksum:
            return compiled
    except OSError:
        pass
    compiled = compile_cubin(source, architecture)
    with contextlib.suppress(OSError):  # a folder that cannot be written only costs the time to compile again
        descriptor, name = tempfile.mkstemp(dir=folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(compiled).digest() + compiled)
        os.replace(name, path)
    return compiled


@cache
def version() -> str:
    """NVRTC's: "13.0"."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def compile_cubin(source: str, architecture: str) -> bytes:
    """As `cubin`, from NVRTC."""
    nvrtc = _library()
    program = ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode("ascii"), b"kernel.cu", 0, None, None))
    try:
        options = (ctypes.c_char_p * 2)(f"--gpu-architecture={architecture}".encode(), b"--std=c++17")
        if nvrtc.nvrtcCompileProgram(program, len(options), options):
            raise RuntimeError(
                _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode().strip("\0")
            )
        return _read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read(size_of: Any, read: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(read(program, text))
    return text.raw


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC gives error {status}.")


@cache
def _library() -> Any:
    for version in (13, 12):
        try:
            return ctypes.CDLL(f"libnvrtc.so.{version}")
        except OSError:
            continue
    raise RuntimeError("There is no libnvrtc.so.13 or .12 to compile CUDA kernels with.")
