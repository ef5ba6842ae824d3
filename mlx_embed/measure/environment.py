"""What this machine has, which kernels there are for it, and what to improve: `mlx-embed env`."""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from custom_kernels import accelerate, cpu, twins
from custom_kernels.arrays import spelled
from custom_kernels.backends import KERNEL_BACKENDS
from custom_kernels.choice.op import Op
from custom_kernels.choice.switch import kernels_wanted
from custom_kernels.cpu import blas
from custom_kernels.ops import OPS
from mlx_embed import __version__
from mlx_embed.engine.choice import native_dtype
from mlx_embed.engine.device import NATIVE_DTYPES, accelerator, describe, resolve_device

# There while the driver of an NVIDIA GPU is loaded.
NVIDIA = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Environment:
    """What `environment` found.

    Attributes:
        rows: names to sentences, in the order in which to show them.
        ops: each op's name to its kernels: by back end, whether there is one, or "in others", where kernels of other
            ops do its work too. Whether the machine can run them is in `rows`.
        advice: sentences: what would make it faster, and how; empty where there is nothing.
    """

    rows: dict[str, str]
    ops: dict[str, dict[str, str]]
    advice: list[str]


def environment() -> Environment:
    """Look around."""
    here, wanted = accelerator(), kernels_wanted()
    rows = {
        "mlx-embed": __version__,
        "mlx": f"{version('mlx')}, with {here or 'no accelerator'}",
        "python": f"{platform.python_version()} on {platform.platform()}",
        "cpu": describe(resolve_device("cpu")).removeprefix("cpu: "),
    }
    if here is not None:
        rows[here] = describe(resolve_device("gpu")).removeprefix(f"{here}: ")
    rows["models run on"] = _engine(here, wanted)
    rows["native cpu kernels"] = _native(wanted)
    if cpu.available():
        rows["dtypes on the cpu"] = ", ".join(_dtypes())
    for backend in KERNEL_BACKENDS:
        rows[f"{backend} kernels"] = _gpu_kernels(backend, here, wanted)
    rows["blas of mlx's cpu ops"] = f"OpenBLAS, {blas.num_threads()} threads" if blas.active() else blas.why_inactive()
    rows["wordpiece tokenizers"] = _wordpiece()
    return Environment(rows, {op.name: _kernels(op) for op in OPS}, list(_advice(here, wanted)))


def _engine(here: str | None, wanted: bool) -> str:
    """What "auto" comes to for an encoder, by default."""
    if here is not None:
        return f"{here}, as graphs {'with this package' if wanted else 'of MLX'}'s {'kernels' if wanted else 'own ops'}"
    return "the native cpu kernels" if wanted and cpu.available() else "MLX's own ops on the cpu"


def _native(wanted: bool) -> str:
    if not cpu.available():
        return f"none: {cpu.why_unavailable()}"
    return f"{cpu.instruction_set()}, {cpu.num_threads()} of {cpu.usable_cores()} cores{'' if wanted else '; off'}"


def _dtypes() -> Iterator[str]:
    """What the native kernels compute in for each dtype, and on which instructions."""
    accelerate.decide()
    for name, dtype in NATIVE_DTYPES.items():
        computed = spelled(native_dtype(dtype))
        yield f"{name} {f'by {cpu.product(name)}' if computed == name else f'as {computed}'}"


def _gpu_kernels(backend: str, here: str | None, wanted: bool) -> str:
    if backend != here:
        return "no such device here"
    if not wanted:
        return "off"
    if backend == "metal":
        return "on, where they agree with MLX's ops, and prove faster"
    return "on, where they agree with MLX's ops"


def _wordpiece() -> str:
    try:
        return f"nanotoken {version('nanotoken')}, where it makes the ids of tokenizers {version('tokenizers')}"
    except PackageNotFoundError:
        return f"tokenizers {version('tokenizers')}{', by pieces' if cpu.available() else ''}"


def _kernels(op: Op) -> dict[str, str]:
    """By back end, whether this package has a kernel of the op."""
    native = {"cpu": "yes" if twins.native(op) else "in others"}
    return native | {backend: "yes" if backend in op.kernels else "-" for backend in KERNEL_BACKENDS}


def _advice(here: str | None, wanted: bool) -> Iterator[str]:
    if not wanted:
        yield "This package's kernels are off: unset MLX_EMBED_KERNELS."
    if here is None and NVIDIA.exists():
        yield 'There is an NVIDIA GPU, and MLX has no CUDA: pip install "mlx[cuda13]", or "mlx[cuda12]".'
    if not cpu.available():
        yield cpu.why_unavailable()
    else:
        if os.environ.get("MLX_EMBED_CPU_ISA"):
            yield f"MLX_EMBED_CPU_ISA limits the native kernels to {cpu.instruction_set()}: unset it."
        threads, cores = cpu.num_threads(), cpu.usable_cores()
        if threads < cores:
            yield f"The native kernels use {threads} of {cores} cores: raise MLX_EMBED_NUM_THREADS."
    if platform.system() == "Linux" and not blas.active():
        yield blas.why_inactive()
    if find_spec("nanotoken") is None:
        times = "1.5" if cpu.available() else "30"
        yield f'Ids of many texts come some {times} times as fast with pip install ".[fast]" in a clone of mlx-embed.'
