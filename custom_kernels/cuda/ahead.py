"""Kernels that are compiled before they are needed: what a rehearsal asks for, on threads, all at once.

On a machine that has compiled nothing yet a model's kernels take NVRTC some seconds, one after the other.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

# By what tells them apart, functions that compile kernels and keep what comes of it.
Wanted = dict[Any, Callable[[], Any]]
_wanted: ContextVar[Wanted | None] = ContextVar("_wanted", default=None)
# More at once would only wait for each other's memory.
THREADS = 16


@contextmanager
def rehearsal() -> Iterator[Wanted]:
    """Within the block graphs are built of kernels that nobody checks or launches; gives what these need."""
    wanted: Wanted = {}
    token = _wanted.set(wanted)
    try:
        yield wanted
    finally:
        _wanted.reset(token)


def rehearsed() -> Wanted | None:
    """What the rehearsal that this is in wants so far; None outside of one."""
    return _wanted.get()


def compile_all(wanted: Mapping[Any, Callable[[], Any]]) -> None:
    """Begin to compile, on threads of their own. Errors are for whoever needs the kernel."""
    if not wanted:
        return
    executor = ThreadPoolExecutor(min(len(wanted), THREADS), "mlx-embed-nvrtc")
    with suppress(RuntimeError):  # the process is ending
        for compile_one in wanted.values():
            executor.submit(compile_one)
    executor.shutdown(wait=False)
