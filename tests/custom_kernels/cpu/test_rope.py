"""The native rotation against the formula."""

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import close, normal, rng

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]


@pytest.mark.parametrize("head_dim", [2, 8, 24, 32, 64, 66, 128])
def test_rope(head_dim: int, threads: int) -> None:
    g = rng(head_dim, 13)
    rows, heads, half = 45, 3, head_dim // 2
    qkv = normal(g, rows, 3 * heads * head_dim)
    positions = g.integers(0, 50, rows).astype(np.int32)
    angle = g.standard_normal((50, half))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    parts = qkv.astype(np.float64).reshape(rows, 3, heads, head_dim)
    c, s = cos[positions][:, None, None], sin[positions][:, None, None]
    a, b = parts[..., :half], parts[..., half:]
    wanted = np.concatenate([a * c - b * s, b * c + a * s], axis=-1)
    wanted[:, 2] = parts[:, 2]
    found = cpu.rope(qkv, positions, cos, sin, heads)
    assert found is qkv
    close(found, wanted.reshape(rows, -1))


def test_bad_rope_input() -> None:
    qkv, table = np.ones((4, 24), np.float32), np.ones((3, 2), np.float32)
    with pytest.raises(ValueError, match="position"):
        cpu.rope(qkv, np.array([0, 1, 2, 3], np.int32), table, table, 2)
    with pytest.raises(ValueError, match="even"):
        cpu.rope(np.ones((4, 27), np.float32), np.zeros(4, np.int32), table, table, 3)
    qkv.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        cpu.rope(qkv, np.zeros(4, np.int32), table, table, 2)
    assert (qkv == 1).all()
