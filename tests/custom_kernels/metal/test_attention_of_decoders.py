"""What decoders have of the Metal attention, emulated, against float64."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import metal
from custom_kernels.metal.attention import rotating_attention
from tests.custom_kernels.conftest import exact, exact_attention, head_norms, rotated, rotation, shared, starts
from tests.custom_kernels.metal.conftest import ROUNDING, check, normal
from tests.metal.emulation import emulated_metal, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
NAMES = {mx.float32: "float32", mx.float16: "float16", mx.bfloat16: "bfloat16"}


@pytest.mark.parametrize(
    ("lengths", "heads", "kv_heads", "dim", "dtype", "masks"),
    [
        ([1, 33, 0, 70], 2, 1, 32, mx.float32, {"causal": True}),
        ([16, 1, 9], 4, 2, 64, mx.float16, {"causal": True}),
        ([70, 3], 3, 1, 20, mx.bfloat16, {"causal": True, "window": 9}),
        ([40, 31], 2, 1, 32, mx.float32, {"window": 12}),
        ([18, 20], 2, 1, 128, mx.float32, {"causal": True}),
    ],
)
def test_fewer_heads_and_masks(
    lengths: list[int], heads: int, kv_heads: int, dim: int, dtype: mx.Dtype, masks: dict[str, Any]
) -> None:
    qkv = normal((sum(lengths), (heads + 2 * kv_heads) * dim), dtype)
    options = {"max_seqlen": max(lengths), "kv_heads": kv_heads, **masks}
    with emulated_metal(sum(lengths)):
        found = metal.attention(qkv, starts(lengths), heads, dim**-0.5, **options)
    rows = shared(exact(qkv), heads, kv_heads)
    expected = exact_attention(rows, lengths, heads, dim**-0.5, None, **masks)
    check(found, expected, dtype, slack=4e-6 if dtype == mx.float32 else 4 * ROUNDING[dtype])


@pytest.mark.parametrize(("dtype", "normed"), [(mx.float32, False), (mx.float16, True)])
def test_a_rotation_comes_first(dtype: mx.Dtype, normed: bool) -> None:
    lengths, heads, kv_heads, dim = [20, 1, 13], 4, 2, 32
    qkv = normal((sum(lengths), (heads + 2 * kv_heads) * dim), dtype)
    turn = rotation(lengths, dim, head_norms(dim, NAMES[dtype], 1.0) if normed else None)
    with emulated_metal(2):
        turned = metal.rope(qkv, *turn[:3], heads, kv_heads, turn.norms)
        found = metal.attention(qkv, starts(lengths), heads, 0.1, None, turn, max_seqlen=20, kv_heads=kv_heads)
        plain = metal.attention(turned, starts(lengths), heads, 0.1, max_seqlen=20, kv_heads=kv_heads)
    check(turned, rotated(qkv, turn, heads, kv_heads), dtype)
    assert np.array_equal(exact(found), exact(plain))


@pytest.mark.parametrize(
    ("dim", "dtype", "normed", "lengths", "masks", "seed"),
    [
        (64, mx.float16, True, [40, 3], {"causal": True}, 1),
        (128, mx.float32, True, [18, 2], {}, 3),
        (20, mx.float32, False, [33, 0, 9], {"window": 4}, 4),
        (6, mx.bfloat16, False, [9, 1], {}, 5),
    ],
)
def test_what_is_loaded_is_rotated(
    dim: int, dtype: mx.Dtype, normed: bool, lengths: list[int], masks: dict[str, Any], seed: int
) -> None:
    heads, kv_heads = 4, 2
    qkv = normal((sum(lengths), (heads + 2 * kv_heads) * dim), dtype)
    turn = rotation(lengths, dim, head_norms(dim, NAMES[dtype], 1.0) if normed else None)
    options = {"max_seqlen": max(lengths), "kv_heads": kv_heads, **masks}
    with emulated_metal(seed):
        found = rotating_attention(qkv, starts(lengths), heads, dim**-0.5, None, turn, **options)
    rows = shared(rotated(qkv, turn, heads, kv_heads), heads, kv_heads)
    expected = exact_attention(rows, lengths, heads, dim**-0.5, None, **masks)
    check(found, expected, dtype, slack=1e-5 if dtype == mx.float32 else 16 * ROUNDING[dtype])


def test_positions_beyond_a_text_are_not_read() -> None:
    """Tables as long as the longest text: an angle of a position beyond them would be out of bounds."""
    lengths, dim = [17, 3], 16
    qkv, turn = normal((20, 3 * dim), mx.float32), rotation(lengths, dim)
    turn = turn._replace(cos=mx.array(np.array(turn.cos[:17])), sin=mx.array(np.array(turn.sin[:17])))
    with emulated_metal():
        found = rotating_attention(qkv, starts(lengths), 1, 0.3, None, turn, max_seqlen=17)
    check(found, exact_attention(rotated(qkv, turn, 1, 1), lengths, 1, 0.3), mx.float32)


@pytest.mark.parametrize(("dim", "dtype"), [(80, mx.float16), (256, mx.float32), (16, mx.float16)])
def test_norms_that_a_simdgroup_does_not_share_out(dim: int, dtype: mx.Dtype) -> None:
    turn = rotation([4], dim, head_norms(dim, NAMES[dtype]))
    with pytest.raises(NotImplementedError, match="does not normalise"):
        rotating_attention(mx.zeros((4, 3 * dim), dtype), starts([4]), 1, 0.3, None, turn, max_seqlen=4)
    with pytest.raises(NotImplementedError, match="nothing to rotate"):
        rotating_attention(mx.zeros((4, 3 * dim), dtype), starts([4]), 1, 0.3, max_seqlen=4)
