"""Memory of results, and whose it is."""

import sys
from types import FrameType

import numpy as np
import pytest

from custom_kernels import cpu
from custom_kernels.cpu import memory

pytestmark = pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")


def test_large_outputs_reuse_memory_only_when_it_is_free() -> None:
    first = memory.empty((512, 300))
    address = first.ctypes.data
    assert first.shape == (512, 300)
    assert first.dtype == np.float32
    [floats] = [lease.size for lease in memory._pool.lent if lease.address == address]
    assert first.size <= floats <= first.size * 5 / 4
    view = first[3:]
    del first
    second = memory.empty((512, 300))
    assert second.ctypes.data != address  # the view still holds the first
    del view
    assert memory.empty((512, 300)).ctypes.data == address


def test_a_ctrl_c_while_arrays_go_is_not_lost() -> None:
    """Python drops what is raised in a `__del__`: nothing of Python's own may run where memory is given back."""
    ran: list[str] = []

    def trace(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            ran.append(frame.f_code.co_name)

    array = memory.empty((512, 300))
    sys.setprofile(trace)
    del array
    sys.setprofile(None)
    assert ran == []
