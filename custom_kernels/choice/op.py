"""An op with kernels, and the choice between them and MLX's own ways to compute it.

Before its first use on a machine, every variant of a kernel is run on a small random input and compared with its
reference; `trust` remembers what agreed. A kernel that cannot be built, or differs, is switched off with one warning
that names it. So it never costs more than its speed. On Metal, what agrees is then timed beside MLX's own ways: see
`tune`.

All this happens when a shape class is first seen, and on arrays of its own, which are evaluated even while `mx.compile`
traces the caller. After that a choice is a look-up. A model on Metal sees the classes when it is loaded, and none of
this happens while somebody waits for its vectors: see `serving`.
"""

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from custom_kernels.arrays import as_float32, is_float
from custom_kernels.backends import KERNEL_BACKENDS, default_backend, require_backend
from custom_kernels.choice import trust, tune
from custom_kernels.choice.machine import tf32
from custom_kernels.choice.serving import is_serving
from custom_kernels.choice.switch import kernels_wanted
from custom_kernels.cuda.ahead import rehearsed, under_way

# Of the largest value of the reference. A broken kernel is far off; MLX's own products may be in TF32.
TOLERANCE = {mx.float32: 4e-3, mx.float16: 1e-2, mx.bfloat16: 6e-2}
# On CUDA in float32 where they are not. A kernel may compute with several numbers of fewer bits: all must be there.
PRECISE = 1e-4

# Of a result that is checked by rows, one in so many, which is one of each tile, and this number at its end.
ROWS_APART = 125
# Seconds to time an op's candidates for when it is first needed. A model needs a handful of ops.
QUICK = 0.02
# The numbers of tokens that are timed, each with the most that are taken to be like it.
CLASSES = {16: 64, 128: 1023, 4096: 15999, 16384: sys.maxsize}
# Hidden size and head size of common encoders: MiniLM, e5-small and bge-small; BERT-base and MPNet.
ENCODERS = ((384, 32), (768, 64))

Kernel = Callable[..., mx.array]
# The arguments of an op, by position and by name.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

# What this process has found out about this machine. Nothing here changes a result.
# (back end, op, way to compute it, variant) to whether it agrees with the reference.
_trusted: dict[tuple[Any, ...], bool] = {}
_switched_off: set[tuple[str, str, str]] = set()
# (back end, op, variant, load) to what computes it.
_chosen: dict[tuple[Any, ...], Kernel] = {}
# Whether a rehearsal goes through what runs while kernels are being compiled.
_meanwhile: ContextVar[bool] = ContextVar("_meanwhile", default=False)
# Re-entrant: a way to compute an op may itself be made of ops that choose.
_lock = threading.RLock()


def _renew_lock() -> None:
    """In a forked child, where the thread that held the lock when it was copied does not exist."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


class Load(NamedTuple):
    """What beside the dtypes and widths decides which way to compute an op is fastest.

    Attributes:
        tokens: as many as are timed, for all that are like it.
        longest: of attention: texts are up to so long.
        equal: of attention: all texts are of that length.
    """

    tokens: int
    longest: int | None = None
    equal: bool = False

    @classmethod
    def of(cls, tokens: int, longest: int | None = None, equal: bool = False) -> "Load":
        """The class of a batch of so many tokens."""
        return cls(next(timed for timed, most in CLASSES.items() if tokens <= most), longest, equal)

    @property
    def most(self) -> int:
        """The most tokens of the class."""
        return CLASSES[self.tokens]

    @property
    def many(self) -> bool:
        """Whether there are tokens enough to fill a device."""
        return self.tokens >= 4096

    def __str__(self) -> str:
        texts = "" if self.longest is None else f", texts {'of' if self.equal else 'up to'} {self.longest}"
        return f"{'16000 tokens or more' if self.most == sys.maxsize else f'up to {self.most} tokens'}{texts}"


# MLX hands a Metal kernel an array of fewer than 8 elements, such as the ids of a short text or the places of few, in
# another address space, which is another kernel to compile.
FEW = Load(6)


def typical_encoders() -> Iterator[tuple[int, int, mx.Dtype, Load]]:
    """Hidden size, head size, dtype and load of common encoders, for `Op.typical`."""
    for (width, head_dim), dtype, tokens in product(ENCODERS, (mx.float16, mx.float32), CLASSES):
        yield width, head_dim, dtype, Load(tokens)


@dataclass(frozen=True)
class Op:
    """An op that has kernels, and the choice between them and MLX's own ways to compute it.

    A variant is what a kernel is compiled for, such as dtypes and a width: a named tuple, whose `str` leaves out what
    does not decide about speed.

    Attributes:
        name: of the op, of its file in `ops`, and of its function on every back end that has one.
        kernels: by back end, "metal" or "cuda", whatever this machine has.
        reference: the same op from MLX's own ops, which a kernel must equal.
        builtins: by name, the ways to compute a variant by MLX's own ops; the first runs where no kernel does.
        sample: the arguments, by position and by name, of a small random input of a variant, which has the edge cases
            (load None), or of a typical one.
        typical: of a back end, or of none, the variants and loads of common encoders.
        by_rows: the reference of a result whose rows depend on the rows of the same places alone, in those arguments
            that have as many: it is asked for some of them, by numpy's product. MLX's on a CPU takes seconds for all.
        meanwhile: on CUDA, whether the first of the builtins runs while the kernels of a model are being compiled: it
            needs none that takes so long.
        others: by back end and name, kernels beside those, which run only where they were timed and are faster.
    """

    name: str
    kernels: Mapping[str, Kernel]
    reference: Kernel
    builtins: Callable[[Any], Mapping[str, Kernel]]
    sample: Callable[[Any, Load | None], Arguments]
    typical: Callable[[str | None], Iterable[tuple[Any, Load]]]
    by_rows: Kernel | None = None
    meanwhile: bool = False
    others: Mapping[str, Mapping[str, Kernel]] = field(default_factory=dict)

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
            kernel = self.kernels.get(backend)
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
        if (known := _chosen.get(key)) is not None:
            return known
        if rehearsed() is not None:
            return self._unchecked(found, variant)
        if found == "metal" and is_serving():
            return self._unasked(found, variant)
        if self.meanwhile and found == "cuda" and under_way():
            return self.builtin(variant)
        with _lock:
            if key not in _chosen:
                _chosen[key] = self._fastest(variant, load) if found == "metal" else self._checked(found, variant)
            return _chosen[key]

    def builtin(self, variant: Any) -> Kernel:
        """What computes it where no kernel does."""
        return next(iter(self.builtins(variant).values()))

    def chosen(self) -> Iterator[tuple[Any, Load, bool]]:
        """On Metal, each variant and load that this process has chosen for, and whether a kernel computes it."""
        kernels = [self.kernels.get("metal"), *self.others.get("metal", {}).values()]
        for (found, name, variant, load), way in list(_chosen.items()):
            if (found, name) == ("metal", self.name):
                yield variant, load, way in kernels

    def candidates(self, backend: str, variant: Any) -> Iterator[tuple[str, Kernel]]:
        """Names and functions: the kernels and the built-in ways, without those that differ from the reference here.

        Each is compared when its turn comes, which may take seconds where MLX has to compile it.
        """
        kernel = self.kernels.get(backend)
        kernels = {**({} if kernel is None else {"kernel": kernel}), **self.others.get(backend, {})}
        ways = {**kernels, **self.builtins(variant)}
        none = True
        for name, way in ways.items():
            if self._passes(backend, name, way, variant):
                none = False
                yield name, way
        if none:
            yield "reference", self.reference

    def runs(self, candidates: Mapping[str, Kernel], variant: Any, load: Load) -> dict[str, tune.Run]:
        """Each candidate on a typical input, through `mx.compile`, as models have it; the first run makes the input."""

        @cache
        def sample() -> Arguments:
            arguments, options = self.sample(variant, load)
            mx.eval(list(arguments))
            return arguments, options

        def run(kernel: Kernel) -> tune.Run:
            def alone(*arguments: Any) -> mx.array:
                return kernel(*arguments, **sample()[1])

            def following(before: mx.array, *arguments: Any) -> mx.array:
                return alone(*_waiting_for(before, arguments))

            first, then = mx.compile(alone), mx.compile(following)
            return lambda before: first(*sample()[0]) if before is None else then(before, *sample()[0])

        return {name: run(kernel) for name, kernel in candidates.items()}

    def _unchecked(self, backend: str, variant: Any) -> Kernel:
        """The kernel, for a rehearsal, and where there is none what runs instead."""
        kernel, builtin = self.kernels.get(backend), self.builtin(variant)
        if kernel is None or (backend, self.name, "kernel") in _switched_off or (self.meanwhile and _meanwhile.get()):
            return builtin

        def either(*arguments: Any, **options: Any) -> mx.array:
            if self.meanwhile:
                token = _meanwhile.set(True)
                try:
                    builtin(*arguments, **options)
                finally:
                    _meanwhile.reset(token)
            try:
                return kernel(*arguments, **options)
            except NotImplementedError:
                return builtin(*arguments, **options)

        return either

    def _checked(self, backend: str, variant: Any) -> Kernel:
        kernel = self.kernels.get(backend)
        if kernel is not None and self._passes(backend, "kernel", kernel, variant):
            return kernel
        return self.builtin(variant)

    def _fastest(self, variant: Any, load: Load) -> Kernel:
        candidates = dict(self.candidates("metal", variant))
        winner = next(iter(candidates))
        if len(candidates) > 1:
            try:
                runs = self.runs(candidates, variant, load)
                repeats = tune.repeats(load.many)
                winner = tune.best(self.name, f"{variant}, {load}", runs, repeats=repeats, budget=QUICK)
            except Exception as error:  # as in _passes; what agrees with the reference is right, if not the fastest
                warnings.warn(f"The ways to compute {self.name} could not be timed: {error}", stacklevel=5)
        return candidates[winner]

    def _unasked(self, backend: str, variant: Any) -> Kernel:
        """The kernel if it is known to agree with the reference, and what runs without kernels otherwise."""
        kernel, key = self.kernels.get(backend), (backend, self.name, "kernel", variant)
        if kernel is None or key[:3] in _switched_off or not _trusted.get(key, trust.known(*key)):
            return self.builtin(variant)
        return kernel

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
            loads = (None, FEW) if backend == "metal" else (None,)
            precise = backend == "cuda" and not tf32()
            try:
                faults = (self._fault(way, variant, load, precise) for load in loads)
                fault = next((fault for fault in faults if fault is not None), None)
            except NotImplementedError:  # no kernel of this variant, and none promised
                _trusted[key] = False
                return False
            _trusted[key] = fault is None
            if fault is None:
                trust.remember(*key)
            else:
                _switch_off(backend, self.name, name, fault)
        return _trusted[key]

    def _fault(self, way: Kernel, variant: Any, load: Load | None = None, precise: bool = False) -> str | None:
        """Compare once, on a sample of the load; float32 must be `precise`, or else is as MLX's own ops may be.

        The arrays are fresh, so that this may run while `mx.compile` traces the caller.
        """
        arguments, options = self.sample(variant, load)
        try:
            found = way(*arguments, **options)
            mx.eval(found)
        except NotImplementedError:
            raise
        except Exception as error:  # whatever a compiler or a driver may say
            return f"it does not run: {str(error).strip()[:300]}"
        # On the CPU, where MLX has no kernels to compile: on CUDA the reference's own would take many seconds.
        with mx.stream(mx.cpu):
            if self.by_rows is not None:
                found, arguments = _some_rows(found, arguments)
            expected = (self.by_rows or self.reference)(*tree_map(as_float32, arguments), **options)
            if found.shape != expected.shape:
                return f"its result has the shape {found.shape}, not {expected.shape}"
            difference = float(mx.abs(as_float32(found) - expected).max() / mx.abs(expected).max())
        leaves: Any = tree_flatten(list(arguments))
        tolerance = TOLERANCE | ({mx.float32: PRECISE} if precise else {})
        if not difference <= max((tolerance[x.dtype] for _, x in leaves if is_float(x)), default=0.0):
            return f"its relative error is {difference:.1e}"
        return None


def _some_rows(found: mx.array, arguments: tuple[Any, ...]) -> tuple[mx.array, tuple[Any, ...]]:
    """Rows from all over a result, the last ones among them, and the arguments that they come from."""
    total = found.shape[0]
    places = mx.array(np.r_[0:total:ROWS_APART, max(total - ROWS_APART, 0) : total])

    def some(x: Any) -> Any:
        return x[places] if isinstance(x, mx.array) and x.shape[0] == total else x

    return some(found), tuple(map(some, arguments))


def _waiting_for(before: mx.array, arguments: tuple[Any, ...]) -> Any:
    """The same arguments, the smallest array of which cannot be had before that result can.

    Metal's launches wait for each other where one reads the buffer that another writes, as the ops of a model do. What
    `mx.depends` joins shares no buffer, and may run at once.
    """
    leaves: Any = tree_flatten(list(arguments))
    smallest = min((x for _, x in leaves if isinstance(x, mx.array)), key=lambda x: x.size)
    nothing = mx.view(before.reshape(-1)[:1], mx.uint8)[:1] & 0
    return tree_map(lambda x: x + nothing.astype(x.dtype) if x is smallest else x, arguments)


def _switch_off(backend: str, op: str, name: str, why: str) -> None:
    _switched_off.add((backend, op, name))
    for key in [key for key in _chosen if key[:2] == (backend, op)]:
        del _chosen[key]
    message = f"The {backend} {name} of {op} is switched off, since {why}. MLX's own ops run instead."
    warnings.warn(message, RuntimeWarning, stacklevel=7)
