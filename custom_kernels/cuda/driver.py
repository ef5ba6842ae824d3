"""What MLX does not tell of the GPU, or give of its memory: a few calls of the CUDA driver."""

import ctypes
from functools import cache
from typing import Any

PORTABLE_AND_MAPPED = 3
MULTIPROCESSOR_COUNT = 16


@cache
def multiprocessors() -> int:
    """Multiprocessors of the first GPU that this process sees, which is MLX's."""
    device, count = ctypes.c_int(), ctypes.c_int()
    _check("cuInit", 0)
    _check("cuDeviceGet", ctypes.byref(device), 0)
    _check("cuDeviceGetAttribute", ctypes.byref(count), MULTIPROCESSOR_COUNT, device)
    return count.value


def version() -> int:
    """The newest CUDA that the driver knows: 13000 is 13.0."""
    found = ctypes.c_int()
    _check("cuDriverGetVersion", ctypes.byref(found))
    return found.value


def allocate_pinned(size: int) -> int:
    """The address of `size` bytes of host memory that the GPU reaches too. They are never freed."""
    address = ctypes.c_void_p()
    _check("cuMemHostAlloc", ctypes.byref(address), ctypes.c_size_t(size), PORTABLE_AND_MAPPED)
    return int(address.value or 0)


def loads(image: bytes, name: str) -> bool:
    """Whether the driver takes these bytes as a module, and finds kernel `name` in it, on the first GPU."""
    device, context, module, kernel = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    _check("cuInit", 0)
    _check("cuDeviceGet", ctypes.byref(device), 0)
    _check("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)  # MLX's, on whatever thread this is
    try:
        _check("cuCtxPushCurrent_v2", context)
        try:
            if _library().cuModuleLoadData(ctypes.byref(module), image):
                return False
            found = not _library().cuModuleGetFunction(ctypes.byref(kernel), module, name.encode("ascii"))
            _check("cuModuleUnload", module)
            return found
        finally:
            _check("cuCtxPopCurrent_v2", ctypes.byref(context))
    finally:
        _check("cuDevicePrimaryCtxRelease_v2", device)


def _check(name: str, *arguments: Any) -> None:
    status = getattr(_library(), name)(*arguments)
    if status:
        raise RuntimeError(f"CUDA's {name} gives error {status}.")


@cache
def _library() -> Any:
    return ctypes.CDLL("libcuda.so.1")
