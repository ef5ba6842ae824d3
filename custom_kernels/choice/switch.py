"""Whether kernels are wanted: by the caller, within a block, or else by the environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_wanted: ContextVar[bool | None] = ContextVar("kernels_wanted", default=None)


@contextmanager
def use_kernels(wanted: bool) -> Iterator[None]:
    """Within the block, run this package's kernels, or MLX's own ops alone.

        with use_kernels(False):
            vectors = model(ids)

    It holds for this thread or asyncio task, and for what `asyncio.to_thread` runs for it, and for nobody else: a
    thread that is started within the block follows the environment. Graphs that `mx.compile` has traced keep what they
    were traced with.
    """
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def kernels_wanted() -> bool:
    """Whether kernels may run here: by the innermost `use_kernels`, or unless MLX_EMBED_KERNELS is "reference"."""
    wanted = _wanted.get()
    return os.environ.get("MLX_EMBED_KERNELS") != "reference" if wanted is None else wanted
