"""Kernels that are compiled before they are needed: what a rehearsal asks for, on threads, all at once.

On a machine that has compiled nothing yet a model's kernels take NVRTC some seconds, one after the other.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

# By what tells them apart, functions that compile kernels and keep what comes of it.
Wanted = dict[Any, Callable[[], Any]]
_wanted: ContextVar[Wanted | None] = ContextVar("_wanted", default=None)
# More at once would only wait for each other's memory.
THREADS = 16
# Those that have begun, and were not over when it was last looked.
_begun: list[Future[Any]] = []


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
        _begun.extend([executor.submit(compile_one) for compile_one in wanted.values()])
    executor.shutdown(wait=False)


def under_way(patience: float = 0.0) -> bool:
    """Whether something is still being compiled, after waiting for so many seconds at most."""
    if not _begun:
        return False
    done, _ = wait(tuple(_begun), patience)
    for one in done:
        with suppress(ValueError):  # another thread was first
            _begun.remove(one)
    return bool(_begun)
