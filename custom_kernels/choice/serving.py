"""Whether somebody waits for a result: then nothing is compared, compiled for that, or timed."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_serving: ContextVar[bool] = ContextVar("serving", default=False)


@contextmanager
def serving() -> Iterator[None]:
    """Within the block, on Metal, an op is computed as was found best before, or by what needs no finding out.

    A model finds out at load: see `GraphEngine.prepare`. It holds for this thread, or task, as `use_kernels` does.
    """
    token = _serving.set(True)
    try:
        yield
    finally:
        _serving.reset(token)


def is_serving() -> bool:
    """Whether this is within `serving`."""
    return _serving.get()
