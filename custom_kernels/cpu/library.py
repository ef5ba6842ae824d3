"""The shared library of C++ kernels: found, checked, loaded at first use, and set to this machine."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

from custom_kernels.cpu import settings
from custom_kernels.cpu.sources import source_hash

LIBRARY = Path(__file__).with_name("libmlx_embed_cpu.so")
# What a function of the library returns, if not 0.
NO_MEMORY, BAD_SEQUENCES, BAD_IDS = 1, 2, 3
# What a weight may be kept in, and its number in kernels.h.
KINDS = {"float32": 0, "bfloat16": 1, "int8": 2}


def available() -> bool:
    """Whether the library is there, up to date, and loads; ValueError as from `load`."""
    return not why_unavailable()


@cache
def why_unavailable() -> str:
    """A sentence that says why the kernels cannot be used and what to do, or "" where they can.

    Raises:
        ValueError: as from `load`.
    """
    try:
        library()
    except (OSError, AttributeError, RuntimeError) as error:
        return str(error)
    return ""


def instruction_set() -> str:
    """What the kernels run on: "AVX-512", "AVX2", "NEON" or "baseline". MLX_EMBED_CPU_ISA can ask for less."""
    return str(load()[1])


def product(dtype: str) -> str:
    """What products of weights in this dtype run on, "AVX512_BF16" for example; "" where they do not."""
    name: bytes = library().mlx_embed_product(KINDS[dtype])
    return name.decode()


def attends(dtype: str) -> bool:
    """Whether attention can be in this dtype, "float32" or "bfloat16"; products may be in dtypes that it is not in."""
    return bool(library().mlx_embed_attends(KINDS[dtype]))


def multiply_by(sgemm: Any | None) -> None:
    """Let layers that are made in float32 from now on be multiplied by a BLAS: its cblas_sgemm, a function of ctypes.

    None is for the kernels' own products. A row's products by a BLAS may depend on how many rows there are, in their
    last bits.
    """
    library().mlx_embed_multiply_by(None if sgemm is None else ctypes.cast(sgemm, ctypes.c_void_p))


def num_threads() -> int:
    """How many threads an op uses, its caller included."""
    return int(library().mlx_embed_threads())


def set_num_threads(count: int) -> None:
    """Let ops use `count` threads.

    Raises:
        ValueError: `count` is less than 1.
    """
    if count < 1:
        raise ValueError(f"set_num_threads needs at least 1 thread, got {count}.")
    library().mlx_embed_set_threads(count)


@cache
def library() -> Any:
    """The library's functions."""
    return load()[0]


@cache
def load() -> tuple[Any, str]:
    """The library, and the instruction set it runs on: loaded once, at the first call.

    Raises:
        RuntimeError: it is not there, or out of date.
        OSError, AttributeError: it does not load.
        ValueError: the environment asks for what does not exist, or what this processor does not have.
    """
    settings.check()
    if not LIBRARY.exists():
        raise RuntimeError("The CPU kernels were not built; with a C++17 compiler installed, run: pip install -e .")
    library: Any = ctypes.CDLL(str(LIBRARY))
    library.mlx_embed_source_hash.restype = ctypes.c_char_p
    if source_hash() not in ("", library.mlx_embed_source_hash().decode()):
        raise RuntimeError("The CPU kernels were built from other sources than these; rebuild: pip install -e .")
    pointer, integer, real, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "choose": (ctypes.c_char_p, [ctypes.c_char_p]),
        "threads": (integer, []),
        "set_threads": (None, [integer]),
        "allocate": (pointer, [integer]),
        "release": (None, [pointer]),
        "trim": (None, []),
        "product": (ctypes.c_char_p, [flag]),
        "attends": (flag, [flag]),
        "multiply_by": (None, [pointer]),
        "lay_out": (pointer, [pointer, pointer, pointer, integer, integer, flag]),
        "discard": (None, [pointer]),
        "watch": (None, [pointer, pointer]),
        "exchange": (None, [pointer, pointer]),
        "linear": (flag, [pointer, integer, pointer, flag, pointer, pointer]),
        "layer_norm": (flag, [pointer] * 4 + [real, integer, integer, pointer]),
        "rms_norm": (flag, [pointer] * 3 + [real, real, integer, integer, pointer]),
        "embedding_norm": (flag, [pointer] * 3 + [integer, pointer, pointer, real, integer, integer, pointer]),
        "attention": (flag, [pointer] * 2 + [integer] * 5 + [real, pointer, integer, integer, flag, flag, pointer]),
        "disentangled_attention": (
            flag,
            [pointer, pointer] + [integer] * 4 + [real, pointer, pointer, integer, pointer, integer, flag, pointer],
        ),
        "output_norm": (flag, [pointer, integer] + [pointer] * 4 + [real, pointer]),
        "feed_forward": (flag, [pointer, integer, pointer, pointer, flag, flag, *[pointer] * 3, real, pointer]),
        "encoder": (
            flag,
            [pointer, pointer, integer, integer, pointer, integer, integer, integer, real, pointer, integer, flag, flag]
            + [pointer, integer]
            + [pointer] * 5,
        ),
        "rope": (flag, [pointer] * 4 + [integer] * 5 + [pointer, pointer, real, real]),
        "mean_pool": (flag, [pointer, pointer] + [integer] * 4 + [flag, pointer]),
        "gather_mean": (
            flag,
            [pointer, flag, integer, integer, pointer, pointer, integer, pointer, pointer, integer, integer, pointer],
        ),
        "linear_max": (flag, [pointer, pointer, integer, integer, pointer, pointer]),
        "inner_products": (flag, [pointer, integer, pointer, integer, pointer, integer, pointer]),
        "top_k_scores": (
            flag,
            [pointer, integer, pointer, flag, integer, integer, pointer, pointer, integer, pointer],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"mlx_embed_{name}")
        function.restype, function.argtypes = result, arguments
    wanted = settings.instruction_set()
    chosen = library.mlx_embed_choose(wanted.encode()).decode()
    if settings.INSTRUCTION_SETS.get(wanted) not in (None, chosen):
        raise ValueError(f"MLX_EMBED_CPU_ISA is {wanted!r}, which this processor does not have; leave it unset.")
    library.mlx_embed_set_threads(settings.threads())
    return library, chosen


def check(status: int) -> None:
    """Raise MemoryError where a function had none for its scratch space."""
    if status == NO_MEMORY:
        raise MemoryError("There is no memory for the scratch space of a CPU kernel.")


def check_sequences(op: str, status: int, total: int, longest: int | None = None) -> None:
    """As `check`; ValueError where cu_seqlens do not run from 0 to `total`, or one is longer than `longest`."""
    if status == BAD_SEQUENCES:
        bound = "" if longest is None else f", none longer than the bias's {longest}"
        raise ValueError(f"{op} needs cu_seqlens that rise from 0 to {total}{bound}.")
    check(status)
