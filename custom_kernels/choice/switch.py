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
    """Whether kernels may run here: by the innermost `use_kernels`, or unless MLX_EMBED_KERNELS is "reference".

    Raises:
        ValueError: MLX_EMBED_KERNELS is something else; it may be unset or empty.
    """
    wanted = _wanted.get()
    if wanted is not None:
        return wanted
    setting = os.environ.get("MLX_EMBED_KERNELS", "")
    if setting not in ("", "reference"):
        raise ValueError(
            f"MLX_EMBED_KERNELS is {setting!r}; set it to reference for MLX's own ops alone, or not at all for kernels."
        )
    return not setting
