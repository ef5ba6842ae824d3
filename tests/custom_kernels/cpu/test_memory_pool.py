"""Memory that was given back: taken once, counted, and freed where enough is kept."""

from types import SimpleNamespace

import pytest

from custom_kernels import cpu
from custom_kernels.cpu import memory

pytestmark = pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")
SHAPE = (512, 301)


def kept() -> int:
    return sum(size * len(stack) for size, stack in memory._pool.free.items())


def test_it_is_taken_once() -> None:
    first = memory.empty(SHAPE)
    address = first.ctypes.data
    del first
    second, third = memory.empty(SHAPE), memory.empty(SHAPE)
    assert address == second.ctypes.data != third.ctypes.data
    assert memory._pool.kept == kept()


def test_it_is_freed_where_enough_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real, freed = memory.library(), []

    def release(address: int) -> None:
        freed.append(address)
        real.mlx_embed_release(address)

    functions = SimpleNamespace(mlx_embed_allocate=real.mlx_embed_allocate, mlx_embed_release=release)
    monkeypatch.setattr(memory, "library", lambda: functions)
    monkeypatch.setattr(memory._pool, "most_kept", 0)
    array = memory.empty(SHAPE)
    address = array.ctypes.data
    del array
    memory.empty(SHAPE)
    assert address in freed
    assert memory._pool.kept == kept()
