"""Which kernel back ends this machine has, and whether a kernel may be trusted here.

Before its first use in a process, every variant of a kernel is run on a small random input and compared with its
reference. A kernel that cannot be built, or differs, is switched off with one warning that names it. So it never
costs more than its speed.
"""

import os
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

KERNEL_BACKENDS = ("metal", "cuda")
# Of the largest value of the reference. A broken kernel is far off; the reference itself may use TF32.
TOLERANCE = {mx.float32: 4e-3, mx.float16: 1e-2, mx.bfloat16: 6e-2}

Kernel = Callable[..., mx.array]
Sample = Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]

_wanted: bool | None = None
_trusted: dict[Hashable, bool] = {}
_switched_off: set[tuple[str, str]] = set()
_lock = threading.RLock()


def use_kernels(wanted: bool | None) -> None:
    """Switch all custom kernels on or off; None leaves it to MLX_EMBED_KERNELS ("reference" means off).

    Graphs that `mx.compile` has traced keep the kernels they were traced with.
    """
    global _wanted
    _wanted = wanted


def kernels_wanted() -> bool:
    """Whether custom kernels may run, by `use_kernels` or the environment."""
    return os.environ.get("MLX_EMBED_KERNELS") != "reference" if _wanted is None else _wanted


@contextmanager
def kernels_switched(wanted: bool | None) -> Iterator[None]:
    """Within the block, as after `use_kernels(wanted)`; None changes nothing."""
    before = _wanted
    use_kernels(before if wanted is None else wanted)
    try:
        yield
    finally:
        use_kernels(before)


def default_backend() -> str | None:
    """The kernel back end of MLX's default device: "metal", "cuda", or None on a CPU."""
    if mx.default_device() != mx.Device(mx.gpu):
        return None
    return "metal" if mx.metal.is_available() else "cuda" if mx.cuda.is_available() else None


def require_backend(name: str) -> None:
    """Raise RuntimeError where kernels of `name` ("metal" or "cuda") cannot run on this machine."""
    available = {"metal": mx.metal.is_available, "cuda": mx.cuda.is_available}[name]
    if not available():
        raise RuntimeError(
            f"The {name} kernel was asked for, but this MLX build ({version('mlx')}) has no {name} back end here. "
            'Use backend=None to take what the machine has, or backend="reference".'
        )


@cache
def kernel_source(backend: str, name: str) -> str:
    """The body of kernel `name` as it ships, from `metal/<name>.metal` or `cuda/<name>.cu`."""
    suffix = {"metal": "metal", "cuda": "cu"}[backend]
    return (Path(__file__).parent / backend / f"{name}.{suffix}").read_text(encoding="ascii")


def pick(op: str, backend: str | None, variant: Hashable, reference: Kernel, sample: Sample) -> Kernel | None:
    """The kernel of `op` to run, or None for its reference.

    Args:
        op: the name of the op, and of the function in `custom_kernels.metal` or `custom_kernels.cuda`.
        backend: "metal" or "cuda" to have that kernel unchecked, "reference" for none, None to choose.
        variant: what is compiled separately: each gets a check of its own.
        reference: the same op from MLX's own ops.
        sample: makes the arguments, by position and by name, of a small random input of this variant.

    Raises:
        ValueError: an unknown back end.
        RuntimeError: a named back end that this machine does not have, or that has no such kernel.
    """
    if backend in KERNEL_BACKENDS:
        require_backend(backend)
        kernel = _kernel(backend, op)
        if kernel is None:
            raise RuntimeError(f"There is no {backend} kernel of {op}.")
        return kernel
    if backend is not None and backend != "reference":
        raise ValueError(f"{op} has no backend {backend!r}; choose one of reference, metal, cuda, or None.")
    found = default_backend()
    if backend == "reference" or found is None or not kernels_wanted() or (found, op) in _switched_off:
        return None
    kernel = _kernel(found, op)
    if kernel is None:
        return None
    key = (found, op, variant)
    with _lock:
        if key not in _trusted:
            _trusted[key] = _passes(found, op, kernel, reference, sample)
    return kernel if _trusted[key] else None


def _kernel(backend: str, op: str) -> Kernel | None:
    return getattr(import_module(f"custom_kernels.{backend}"), op, None)


def _passes(backend: str, op: str, kernel: Kernel, reference: Kernel, sample: Sample) -> bool:
    """Compare once. The arrays are fresh, so that this may run while `mx.compile` traces the caller."""
    arguments, options = sample()
    try:
        found = kernel(*arguments, **options)
        mx.eval(found)
    except NotImplementedError:
        return False  # no kernel of this variant, and none promised
    except Exception as error:  # whatever a compiler or a driver may say
        return _switch_off(backend, op, f"it does not run: {str(error).strip()[:300]}")
    # On the CPU, where MLX has no kernels to compile: on CUDA the reference's own would take many seconds.
    with mx.stream(mx.cpu):
        expected = reference(*tree_map(_float32, arguments), **options)
        if found.shape != expected.shape:
            return _switch_off(backend, op, f"its result has the shape {found.shape}, not {expected.shape}")
        difference = float(mx.abs(_float32(found) - expected).max() / mx.abs(expected).max())
    leaves: Any = tree_flatten(list(arguments))
    if not difference <= max((TOLERANCE[x.dtype] for _, x in leaves if _is_float(x)), default=0.0):
        return _switch_off(backend, op, f"its relative error is {difference:.1e}")
    return True


def _is_float(x: Any) -> bool:
    return isinstance(x, mx.array) and x.dtype in TOLERANCE


def _float32(x: Any) -> Any:
    return x.astype(mx.float32) if _is_float(x) else x


def _switch_off(backend: str, op: str, why: str) -> bool:
    _switched_off.add((backend, op))
    message = f"The {backend} kernel of {op} is switched off, since {why}. MLX's own ops run instead."
    warnings.warn(message, RuntimeWarning, stacklevel=5)
    return False
