"""Which kernel back ends this machine has, whether a kernel may be trusted here, and whether it is the fastest way.

Before its first use on a machine, every variant of a kernel is run on a small random input and compared with its
reference; `custom_kernels.trust` remembers what agreed. A kernel that cannot be built, or differs, is switched off with
one warning that names it. So it never costs more than its speed. On Metal, what agrees is then timed beside MLX's own
ways (`custom_kernels.tune`).

All this happens when a shape class is first seen, and on arrays of its own, which are evaluated even while `mx.compile`
traces the caller. After that a choice is a look-up.
"""

import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from custom_kernels import trust, tune

KERNEL_BACKENDS = ("metal", "cuda")
# Of the largest value of the reference. A broken kernel is far off; the reference itself may use TF32.
TOLERANCE = {mx.float32: 4e-3, mx.float16: 1e-2, mx.bfloat16: 6e-2}

# Seconds to time an op's candidates for when it is first needed. A model needs a handful of ops.
QUICK = 0.02
# Between 128 and 4096 tokens, the two numbers that are timed.
MANY_FROM = 1024

Kernel = Callable[..., mx.array]

_wanted: bool | None = None
# (back end, op, way to compute it, variant) to whether it agrees with the reference.
_trusted: dict[tuple[Any, ...], bool] = {}
_switched_off: set[tuple[str, str, str]] = set()
# (back end, op, variant, load) to what computes it.
_chosen: dict[tuple[Any, ...], Kernel] = {}
# Re-entrant: a way to compute an op may itself be made of ops that choose.
_lock = threading.RLock()


def use_kernels(wanted: bool | None) -> None:
    """Switch all custom kernels on or off; None leaves it to MLX_EMBED_KERNELS ("reference" means off).

    Graphs that `mx.compile` has traced keep the kernels they were traced with. A model that was loaded while kernels
    were off has no weights laid out for those of linear layers.
    """
    global _wanted
    _wanted = wanted


def kernels_wanted(choice: bool | None = None) -> bool:
    """Whether custom kernels may run: by this choice, or without one by `use_kernels`, or by the environment."""
    wanted = _wanted if choice is None else choice
    return os.environ.get("MLX_EMBED_KERNELS") != "reference" if wanted is None else wanted


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


def shipped_kernel(backend: str, op: str) -> Kernel | None:
    """The kernel of `op` that this package has for "metal" or "cuda", whatever this machine has."""
    return getattr(import_module(f"custom_kernels.{backend}"), op, None)


class Load(NamedTuple):
    """What beside the dtypes and widths decides which way to compute an op is fastest.

    Attributes:
        many: whether there are tokens enough to fill a device.
        longest: of attention: texts are up to so long.
        equal: of attention: all texts are of that length.
    """

    many: bool
    longest: int | None = None
    equal: bool = False

    @classmethod
    def of(cls, tokens: int, longest: int | None = None, equal: bool = False) -> "Load":
        """The class of a batch of so many tokens."""
        return cls(tokens >= MANY_FROM, longest, equal)

    @property
    def tokens(self) -> int:
        """As many as are typical."""
        return 4096 if self.many else 128

    def __str__(self) -> str:
        texts = "" if self.longest is None else f", texts {'of' if self.equal else 'up to'} {self.longest}"
        return f"{'many' if self.many else 'few'} tokens{texts}"


@dataclass(frozen=True)
class Op:
    """An op that has kernels, and the choice between them and MLX's own ways to compute it.

    A variant is what a kernel is compiled for, such as dtypes and a width: a named tuple, whose `str` leaves out what
    does not decide about speed.

    Attributes:
        name: of the op, and of the function in `custom_kernels.metal` or `custom_kernels.cuda`.
        reference: the same op from MLX's own ops, which a kernel must equal.
        builtins: by name, the ways to compute a variant by MLX's own ops; the first runs where no kernel does.
        sample: the arguments, by position and by name, of a small random input of a variant, which has the edge cases
            (load None), or of a typical one.
    """

    name: str
    reference: Kernel
    builtins: Callable[[Any], Mapping[str, Kernel]]
    sample: Callable[[Any, Load | None], tuple[tuple[Any, ...], dict[str, Any]]]

    def pick(self, backend: str | None, variant: Any, load: Load) -> Kernel:
        """What computes this variant here.

        Args:
            backend: "metal" or "cuda" to have that kernel unchecked, "reference" for none, None to choose.
            variant: see the class.
            load: what it is to compute.

        Raises:
            ValueError: an unknown back end.
            RuntimeError: a named back end that this machine does not have, or that has no such kernel.
        """
        if backend in KERNEL_BACKENDS:
            require_backend(backend)
            kernel = shipped_kernel(backend, self.name)
            if kernel is None:
                raise RuntimeError(f"There is no {backend} kernel of {self.name}.")
            return kernel
        if backend is not None and backend != "reference":
            raise ValueError(f"{self.name} has no backend {backend!r}; choose one of reference, metal, cuda, or None.")
        found = default_backend()
        if backend == "reference" or found is None or not kernels_wanted():
            return self.builtin(variant)
        # On CUDA the kernels measured fastest, but where the op itself says otherwise. On Metal nothing was measured
        # by us, so the user's machine decides, for each load.
        key = (found, self.name, variant, load if found == "metal" else None)
        with _lock:
            if key not in _chosen:
                _chosen[key] = self._fastest(variant, load) if found == "metal" else self._checked(found, variant)
            return _chosen[key]

    def builtin(self, variant: Any) -> Kernel:
        """What computes it where no kernel does."""
        return next(iter(self.builtins(variant).values()))

    def candidates(self, backend: str, variant: Any) -> dict[str, Kernel]:
        """By name, the kernel and the built-in ways, without those that differ from the reference here."""
        kernel = shipped_kernel(backend, self.name)
        ways = {**({} if kernel is None else {"kernel": kernel}), **self.builtins(variant)}
        agreeing = {name: way for name, way in ways.items() if self._passes(backend, name, way, variant)}
        return agreeing or {"reference": self.reference}

    def runs(self, candidates: Mapping[str, Kernel], variant: Any, load: Load) -> dict[str, Callable[[], mx.array]]:
        """Each candidate on a typical input, through `mx.compile`, as models have it."""
        arguments, options = self.sample(variant, load)
        mx.eval(list(arguments))

        def run(kernel: Kernel) -> Callable[[], mx.array]:
            compiled = mx.compile(partial(kernel, **options))
            return lambda: compiled(*arguments)

        return {name: run(kernel) for name, kernel in candidates.items()}

    def _checked(self, backend: str, variant: Any) -> Kernel:
        kernel = shipped_kernel(backend, self.name)
        if kernel is not None and self._passes(backend, "kernel", kernel, variant):
            return kernel
        return self.builtin(variant)

    def _fastest(self, variant: Any, load: Load) -> Kernel:
        candidates = self.candidates("metal", variant)
        winner = next(iter(candidates))
        if len(candidates) > 1:
            try:
                winner = tune.best(self.name, f"{variant}, {load}", self.runs(candidates, variant, load), budget=QUICK)
            except Exception as error:  # as in _passes; what agrees with the reference is right, if not the fastest
                warnings.warn(f"The ways to compute {self.name} could not be timed: {error}", stacklevel=5)
        return candidates[winner]

    def _passes(self, backend: str, name: str, way: Kernel, variant: Any) -> bool:
        """Whether it agrees with the reference, compared once."""
        if way is self.reference:
            return True
        if (backend, self.name, name) in _switched_off:
            return False
        key = (backend, self.name, name, variant)
        if key not in _trusted:
            if trust.known(*key):
                _trusted[key] = True
                return True
            try:
                fault = self._fault(way, variant)
            except NotImplementedError:  # no kernel of this variant, and none promised
                _trusted[key] = False
                return False
            _trusted[key] = fault is None
            if fault is None:
                trust.remember(*key)
            else:
                _switch_off(backend, self.name, name, fault)
        return _trusted[key]

    def _fault(self, way: Kernel, variant: Any) -> str | None:
        """Compare once. The arrays are fresh, so that this may run while `mx.compile` traces the caller."""
        arguments, options = self.sample(variant, None)
        try:
            found = way(*arguments, **options)
            mx.eval(found)
        except NotImplementedError:
            raise
        except Exception as error:  # whatever a compiler or a driver may say
            return f"it does not run: {str(error).strip()[:300]}"
        # On the CPU, where MLX has no kernels to compile: on CUDA the reference's own would take many seconds.
        with mx.stream(mx.cpu):
            expected = self.reference(*tree_map(_float32, arguments), **options)
            if found.shape != expected.shape:
                return f"its result has the shape {found.shape}, not {expected.shape}"
            difference = float(mx.abs(_float32(found) - expected).max() / mx.abs(expected).max())
        leaves: Any = tree_flatten(list(arguments))
        if not difference <= max((TOLERANCE[x.dtype] for _, x in leaves if _is_float(x)), default=0.0):
            return f"its relative error is {difference:.1e}"
        return None


def random(*shape: int, dtype: mx.Dtype, scale: float = 1.0, seed: int = 0) -> mx.array:
    """Normally distributed values, the same at every call; large arrays repeat themselves, which takes less time."""
    values = np.random.default_rng(seed).standard_normal(min(math.prod(shape), 2**18), dtype=np.float32) * scale
    return mx.array(np.resize(values, shape).astype(np.float32)).astype(dtype)


def spelled(dtype: mx.Dtype) -> str:
    """The dtype's name: "float16"."""
    return str(dtype).removeprefix("mlx.core.")


def _is_float(x: Any) -> bool:
    return isinstance(x, mx.array) and x.dtype in TOLERANCE


def _float32(x: Any) -> Any:
    return x.astype(mx.float32) if _is_float(x) else x


def _switch_off(backend: str, op: str, name: str, why: str) -> None:
    _switched_off.add((backend, op, name))
    for key in [key for key in _chosen if key[:2] == (backend, op)]:
        del _chosen[key]
    message = f"The {backend} {name} of {op} is switched off, since {why}. MLX's own ops run instead."
    warnings.warn(message, RuntimeWarning, stacklevel=7)
