"""What decoders have of attention: grouped heads, causal masks and windows, and rotary positions, against float64."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import attention, cpu
from custom_kernels.cuda.heuristics import keys_seen, rotates_inside
from custom_kernels.parameters import Rotation
from custom_kernels.twins import as_native
from mlx_embed.engine.device import accelerator
from tests.custom_kernels.conftest import (
    DTYPES,
    exact_attention,
    head_norms,
    limit,
    poison,
    present,
    random,
    rotated,
    rotation,
    shared,
    starts,
)
from tests.custom_kernels.conftest import error as largest_error

LENGTHS = {"short": [1, 16, 0, 7, 2, 15], "middle": [31, 32, 1, 17], "long": [130, 1, 64, 0, 65, 200]}
# Query heads, heads of key and value, head size.
HEADS = [(4, 2, 128), (3, 1, 64), (2, 2, 32), (2, 1, 256), (2, 1, 20), (4, 2, 80)]
MASKS: dict[str, dict[str, Any]] = {
    "causal": {"causal": True},
    "window": {"window": 9},
    "causal window": {"causal": True, "window": 40},
    "all": {},
}


def expected(
    qkv: mx.array, lengths: list[int], heads: int, kv_heads: int, scale: float, turn: Rotation | None, **masks: Any
) -> np.ndarray:
    rows = np.array(qkv.astype(mx.float32)) if turn is None else rotated(qkv, turn, heads, kv_heads)
    return exact_attention(shared(rows.astype(np.float64), heads, kv_heads), lengths, heads, scale, None, **masks)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("turned", ["plain", "rotated", "normalised"])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), HEADS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", present("attention"))
def test_attention(backend: str, dtype: str, heads: int, kv_heads: int, dim: int, turned: str, mask: str) -> None:
    if backend == "reference" and (dtype != "float32" or dim != 64):
        pytest.skip("the reference is the same for all")
    for lengths in LENGTHS.values():
        qkv = random(sum(lengths), (heads + 2 * kv_heads) * dim, dtype=dtype)
        norms = head_norms(dim, dtype, 1.0) if turned == "normalised" else None
        turn = None if turned == "plain" else rotation(lengths, dim, norms)
        wanted = expected(qkv, lengths, heads, kv_heads, dim**-0.5, turn, **MASKS[mask])
        poison(sum(lengths), heads * dim, dtype=dtype)
        options = {"max_seqlen": max(lengths) + 1, "kv_heads": kv_heads, "backend": backend, **MASKS[mask]}
        found = attention(qkv, starts(lengths), heads, dim**-0.5, None, turn, **options)
        assert found.dtype == DTYPES[dtype]
        # Weights near 2 make scores of twice the size, and query and key are rounded once more when they are turned.
        assert largest_error(found, wanted) <= limit(backend, dtype) * (4 if turned == "normalised" else 1.5)


@pytest.mark.parametrize("turned", [False, True], ids=["plain", "rotated"])
@pytest.mark.parametrize("lengths", [[700, 650, 3], [300, 300]], ids=["ragged", "equal"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(3, 1, 64), (4, 2, 128), (2, 1, 256)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_long_texts_as_chosen(
    dtype: str, heads: int, kv_heads: int, dim: int, mask: str, lengths: list[int], turned: bool
) -> None:
    """On CUDA long texts are rotated in a launch before; those of one length are cuDNN's, and others have a kernel."""
    if accelerator() is None and (dtype != "float32" or dim != 64):
        pytest.skip("the reference is the same for all")
    if accelerator() is None:  # and for texts of any length
        lengths = [n // 4 for n in lengths]
    qkv = random(sum(lengths), (heads + 2 * kv_heads) * dim, dtype=dtype)
    turn = rotation(lengths, dim) if turned else None
    wanted = expected(qkv, lengths, heads, kv_heads, dim**-0.5, turn, **MASKS[mask])
    poison(sum(lengths), heads * dim, dtype=dtype)
    options = {"max_seqlen": max(lengths), "kv_heads": kv_heads, **MASKS[mask]}
    found = attention(qkv, starts(lengths), heads, dim**-0.5, None, turn, **options)
    assert largest_error(found, wanted) <= limit("reference", dtype) * 1.5


@pytest.mark.parametrize(
    ("dtype", "dim", "longest", "window", "causal", "inside"),
    [
        (mx.float16, 64, 256, None, False, True),
        (mx.float16, 64, 257, None, True, False),
        (mx.bfloat16, 128, 640, None, True, True),
        (mx.bfloat16, 128, 641, None, True, False),
        (mx.bfloat16, 256, 65, None, False, False),
        (mx.float16, 64, 8192, 64, False, True),
        (mx.float16, 64, 8192, 129, False, False),
        (mx.float16, 64, 8192, 200, True, True),
        (mx.float32, 64, 16, None, False, False),
        (mx.float16, 80, 16, None, False, False),
    ],
)
def test_where_attention_rotates(
    dtype: mx.Dtype, dim: int, longest: int, window: int | None, causal: bool, inside: bool
) -> None:
    assert rotates_inside(dtype, dim, keys_seen(longest, window, causal)) == inside


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", present("attention")[1:])
def test_a_nan_stays_in_its_text(backend: str, dtype: str) -> None:
    lengths = [40, 9, 130, 1]
    for sick in range(len(lengths)):
        qkv = random(sum(lengths), 4 * 64, dtype=dtype)
        begin = sum(lengths[:sick])
        qkv[begin : begin + lengths[sick]] = mx.nan
        turn = rotation(lengths, 64, head_norms(64, dtype))
        options = {"max_seqlen": 130, "kv_heads": 1, "causal": True, "backend": backend}
        found = np.array(attention(qkv, starts(lengths), 2, 0.1, None, turn, **options).astype(mx.float32))
        assert np.isnan(found[begin : begin + lengths[sick]]).all()
        assert np.isfinite(np.delete(found, np.s_[begin : begin + lengths[sick]], axis=0)).all()


@pytest.mark.parametrize("backend", [*present("attention"), None])
def test_a_token_does_not_see_what_follows(backend: str | None) -> None:
    """Exactly: what comes after a token may be anything at all."""
    lengths, seen = [70, 130], 101
    qkv = random(200, 4 * 64, dtype="float16")
    turn = rotation(lengths, 64, head_norms(64, "float16"))

    def run(x: mx.array) -> np.ndarray:
        options = {"max_seqlen": 130, "kv_heads": 1, "causal": True, "backend": backend}
        return np.array(attention(x, starts(lengths), 2, 0.1, None, turn, **options))[70 : 70 + seen]

    before = run(qkv)
    qkv[70 + seen :] = random(200 - 70 - seen, 4 * 64, dtype="float16", scale=9)
    assert np.array_equal(run(qkv), before)


@pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("turned", ["plain", "rotated", "normalised"])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), HEADS[:5])
def test_the_native_attention(heads: int, kv_heads: int, dim: int, turned: str, mask: str) -> None:
    lengths = [700] if dim == 32 else LENGTHS["long"]
    qkv = random(sum(lengths), (heads + 2 * kv_heads) * dim)
    turn = None
    if turned != "plain":
        turn = rotation(lengths, dim, head_norms(dim, "float32", 1.0) if turned == "normalised" else None)
    wanted = expected(qkv, lengths, heads, kv_heads, dim**-0.5, turn, **MASKS[mask])
    arguments = as_native((qkv, starts(lengths), heads, dim**-0.5, None, turn))
    found = cpu.attention(*arguments, kv_heads=kv_heads, **MASKS[mask])
    assert np.abs(found - wanted).max() <= (2e-4 if turned == "normalised" else 2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 3}, "3 kv_heads"),
        ({"kv_heads": 0}, "0 kv_heads"),
        ({"num_heads": 3}, r"got \(4, 256\) for 3 heads and 1 kv_heads"),
        ({"rotation": "positions"}, r"positions \[4\]"),
        ({"rotation": "tables"}, r"tables \[P, 32\]"),
        ({"rotation": "dtype"}, "float32 tables"),
        ({"rotation": "dimensions"}, r"tables \[P, 32\]"),
        ({"rotation": "norms"}, r"attention needs norms \[64\]"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    turn = rotation([4], 64)
    bad = {
        "positions": turn._replace(positions=turn.positions[1:]),
        "tables": turn._replace(cos=turn.cos[:, 1:], sin=turn.sin[:, 1:]),
        "dtype": turn._replace(cos=turn.cos.astype(mx.float16)),
        "dimensions": turn._replace(cos=turn.cos[0], sin=turn.sin[0]),
        "norms": turn._replace(norms=head_norms(63, "float32")),
    }
    arguments = {"qkv": mx.zeros((4, 256)), "cu_seqlens": starts([4]), "num_heads": 2, "scale": 1.0, "kv_heads": 1}
    arguments |= change
    if "rotation" in change:
        arguments["rotation"] = bad[change["rotation"]]
    with pytest.raises((ValueError, TypeError), match=message):
        attention(**arguments)
