"""Packed attention against float64, on every back end that this machine has."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import attention, cpu
from custom_kernels.arrays import as_float32
from custom_kernels.backends import default_backend
from custom_kernels.twins import as_native
from tests.custom_kernels.conftest import (
    BATCHES,
    DTYPES,
    TOLERANCE,
    error,
    exact,
    exact_attention,
    limit,
    poison,
    present,
    random,
    starts,
)

LENGTHS = [[1], [5], [4, 4, 4], [1, 7, 2], [0, 3, 0, 0, 5, 0], [512, 1], [31, 32, 33], [64] * 3 + [1] * 9]


def computed(lengths: list[int], backend: str | None) -> list[int]:
    """Of long texts a quarter by MLX's own attention, which does the same whatever their length, slowly on a CPU."""
    return [n // 4 if n > 200 and backend in (None, "reference") else n for n in lengths]


@pytest.mark.parametrize("head_dim", [32, 64])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("backend", present("attention"))
def test_attention(backend: str, batch: str, dtype: str, head_dim: int) -> None:
    lengths, heads, scale = computed(BATCHES[batch], backend), 3, head_dim**-0.5
    qkv = random(sum(lengths), 3 * heads * head_dim, dtype=dtype)
    cu_seqlens, expected = starts(lengths), exact_attention(qkv, lengths, heads, scale)
    mx.eval(qkv, cu_seqlens)
    poison(sum(lengths), heads * head_dim, dtype=dtype)
    bound = max(lengths) + (3 if len(lengths) % 2 else 0)
    found = attention(qkv, cu_seqlens, heads, scale, max_seqlen=bound, backend=backend)
    assert found.dtype == DTYPES[dtype]
    assert error(found, expected) <= limit(backend, dtype)


@pytest.mark.parametrize(
    ("dtype", "head_dim"),
    [
        ("float16", 80),
        ("bfloat16", 96),
        ("float16", 128),
        ("float16", 20),
        ("float32", 100),
        ("float32", 256),
        ("bfloat16", 160),
    ],
)
@pytest.mark.parametrize("backend", present("attention"))
def test_attention_of_other_head_sizes(backend: str, head_dim: int, dtype: str) -> None:
    lengths, heads, scale = [1, 33, 0, 130], 2, head_dim**-0.5
    qkv = random(sum(lengths), 3 * heads * head_dim, dtype=dtype)
    try:
        found = attention(qkv, starts(lengths), heads, scale, max_seqlen=130, backend=backend)
    except NotImplementedError as missing:
        pytest.skip(str(missing))
    assert error(found, exact_attention(qkv, lengths, heads, scale)) <= limit(backend, dtype)


@pytest.mark.parametrize("window", [None, 0, 5, 64])
@pytest.mark.parametrize("bias_dtype", [None, "float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("dtype", "head_dim"), [("float32", 64), ("float16", 64), ("bfloat16", 32)])
@pytest.mark.parametrize("backend", present("attention"))
def test_attention_with_bias_and_window(
    backend: str, head_dim: int, dtype: str, bias_dtype: str | None, window: int | None
) -> None:
    if window is None and bias_dtype is None:
        pytest.skip("covered above")
    lengths, heads, scale = [150, 1, 33, 0, 64], 2, head_dim**-0.5
    qkv = random(sum(lengths), 3 * heads * head_dim, dtype=dtype)
    bias = None if bias_dtype is None else random(heads, 2 * 153 - 1, dtype=bias_dtype)
    expected = exact_attention(qkv, lengths, heads, scale, bias, window)
    found = attention(qkv, starts(lengths), heads, scale, bias, max_seqlen=151, window=window, backend=backend)
    assert error(found, expected) <= limit(backend, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", present("attention")[1:])
def test_attention_at_the_longest_length(backend: str, dtype: str) -> None:
    lengths = [3, 8192]
    qkv = random(sum(lengths), 3 * 32, dtype=dtype)
    found = exact(attention(qkv, starts(lengths), 1, 1.0, max_seqlen=8192, backend=backend))
    rows = exact(qkv)
    for row in (3, 1000, 8191 + 3):
        scores = rows[3:, 32:64] @ rows[row, :32]
        weights = np.exp(scores - scores.max())
        expected = weights @ rows[3:, 64:] / weights.sum()
        assert np.abs(found[row] - expected).max() <= TOLERANCE[dtype] * 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", present("attention"))
def test_attention_of_extreme_scores(backend: str, dtype: str) -> None:
    """Scores of thousands, where exp without the maximum taken off would overflow."""
    if backend == "reference" and (dtype != "float32" or mx.cuda.is_available()):
        pytest.skip("MLX's own attention rounds the scores to the dtype, or to TF32")
    lengths, heads = [70, 5, 129], 2
    qkv = random(sum(lengths), 3 * heads * 32, dtype=dtype, scale=8.0)
    expected = exact_attention(qkv, lengths, heads, 1.0)
    found = attention(qkv, starts(lengths), heads, 1.0, max_seqlen=129, backend=backend)
    assert error(found, expected) <= TOLERANCE[dtype] * (200 if dtype == "float32" else 2)


@pytest.mark.parametrize(("dim", "longest"), [(32, 130), (64, 330), (128, 330), (256, 130)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", present("attention")[1:])
def test_a_nan_stays_in_its_text(backend: str, dtype: str, dim: int, longest: int) -> None:
    lengths, heads = [40, 9, longest, 1], 2
    for sick in range(len(lengths)):
        qkv = random(sum(lengths), 3 * heads * dim, dtype=dtype)
        begin = sum(lengths[:sick])
        qkv[begin : begin + lengths[sick]] = mx.nan
        found = exact(attention(qkv, starts(lengths), heads, 1.0, max_seqlen=longest, backend=backend))
        assert np.isnan(found[begin : begin + lengths[sick]]).all()
        assert np.isfinite(np.delete(found, np.s_[begin : begin + lengths[sick]], axis=0)).all()


@pytest.mark.parametrize("backend", present("attention"))
def test_attention_of_many_texts(backend: str) -> None:
    """Enough texts that a block searches for its own in more than one step, and every tile count."""
    texts = 100 if backend == "reference" else 1500
    lengths = [int(n) for n in np.random.default_rng().integers(0, 20, size=texts)] + [300]
    qkv = random(sum(lengths), 3 * 32, dtype="float16")
    found = attention(qkv, starts(lengths), 1, 0.2, max_seqlen=300, backend=backend)
    assert error(found, exact_attention(qkv, lengths, 1, 0.2)) <= limit(backend, "float16")


@pytest.mark.parametrize(("dim", "lengths"), [(32, [20, 30]), (64, [300, 9])])
@pytest.mark.parametrize("backend", present("attention"))
def test_attention_of_a_slice(backend: str, dim: int, lengths: list[int]) -> None:
    """Contiguous rows whose address is not that of a whole vector."""
    rows, width = sum(lengths), 6 * dim
    base = random(rows * width + 1, dtype="float16")
    qkv = base[1:].reshape(rows, width)
    found = attention(qkv, starts(lengths), 2, 0.2, max_seqlen=max(lengths), backend=backend)
    assert error(found, exact_attention(qkv, lengths, 2, 0.2)) <= limit(backend, "float16")


@pytest.mark.parametrize("backend", present("attention"))
def test_attention_inside_compile_and_without_a_bound(backend: str) -> None:
    lengths = [5, 0, 40]
    qkv, cu_seqlens = random(45, 192, dtype="float16"), starts(lengths)
    compiled = mx.compile(lambda x, c: attention(x * 2, c, 2, 0.2, max_seqlen=40, backend=backend) + 1)
    expected = exact_attention(qkv * 2, lengths, 2, 0.2)
    assert error(compiled(qkv, cu_seqlens), expected + 1) <= limit(backend, "float16") * 2
    assert error(attention(qkv * 2, cu_seqlens, 2, 0.2, backend=backend), expected) <= limit(backend, "float16")


@pytest.mark.parametrize("backend", present("attention"))
@pytest.mark.parametrize("window", [2**31 - 1, 2**31, 2**70])
def test_a_window_wider_than_any_text_sees_everything(window: int, backend: str) -> None:
    qkv, cu_seqlens = random(70, 96, dtype="float16"), starts([65, 5])
    expected = exact_attention(qkv, [65, 5], 1, 0.2)
    found = attention(qkv, cu_seqlens, 1, 0.2, window=window, backend=backend)
    assert error(found, expected) <= limit(backend, "float16")
    if cpu.available():
        native = cpu.attention(*as_native((as_float32(qkv), cu_seqlens)), 1, 0.2, window=window)
        assert np.abs(native - expected).max() <= 1e-5


@pytest.mark.parametrize("backend", present("attention"))
def test_attention_of_nothing(backend: str) -> None:
    for lengths in ([], [0, 0]):
        found = attention(mx.zeros((0, 96)), starts(lengths), 1, 1.0, max_seqlen=0, backend=backend)
        mx.eval(found)
        assert found.shape == (0, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qkv": mx.zeros((4, 100))}, "qkv"),
        ({"qkv": mx.zeros((4, 96), dtype=mx.int32)}, "qkv is"),
        ({"cu_seqlens": mx.array([0.0, 4.0])}, "cu_seqlens int32"),
        ({"scale": -1.0}, "scale above 0"),
        ({"window": -1}, "window of at least 0"),
        ({"bias": mx.zeros((1, 5))}, "bias \\[1, 2 L - 1\\] with L >= 4"),
        ({"bias": mx.zeros((2, 7))}, "bias \\[1, 2 L - 1\\]"),
        ({"bias": mx.zeros((1, 8))}, "bias \\[1, 2 L - 1\\]"),
        ({"bias": mx.zeros((1, 4, 4))}, "bias \\[1, 2 L - 1\\]"),
        ({"bias": mx.zeros((1, 7), dtype=mx.int32)}, "bias, got"),
        ({"backend": "vulkan"}, "no backend 'vulkan'"),
    ],
)
def test_bad_attention_input(change: dict[str, Any], message: str) -> None:
    arguments = {"qkv": mx.zeros((4, 96)), "cu_seqlens": starts([4]), "num_heads": 1, "scale": 1.0, "max_seqlen": 4}
    with pytest.raises((ValueError, TypeError), match=message):
        attention(**(arguments | change))


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("head_dim", [8, 32, 64])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_attention_by_the_default(lengths: list[int], head_dim: int, with_bias: bool, dtype: mx.Dtype) -> None:
    lengths = computed(lengths, default_backend())
    heads, total, longest = 3, sum(lengths), max(lengths)
    rng = np.random.default_rng()
    qkv = mx.array(rng.normal(size=(total, 3 * heads * head_dim)).astype(np.float32)).astype(dtype)
    bias = mx.array(rng.normal(size=(heads, 2 * longest + 3)).astype(np.float32)) if with_bias else None
    scale = head_dim**-0.5
    expected = exact_attention(qkv, lengths, heads, scale, bias)
    for max_seqlen in (None, longest, longest + 2):
        found = attention(qkv, starts(lengths), heads, scale, bias, max_seqlen=max_seqlen)
        assert found.dtype == dtype
        difference = np.abs(np.array(found.astype(mx.float32)) - expected).max()
        assert difference <= {mx.float32: 2e-6, mx.float16: 8e-3, mx.bfloat16: 6e-2}[dtype]


def test_attention_survives_large_scores() -> None:
    qkv = mx.array(np.random.default_rng().normal(0, 40, size=(9, 24)).astype(np.float32)).astype(mx.float16)
    found = attention(qkv, starts([2, 7]), 1, 1.0)
    assert np.isfinite(np.array(found)).all()


@pytest.mark.parametrize(
    ("heads", "bias", "message"),
    [(5, None, "heads"), (2, (2, 5), "L >= 4"), (2, (1, 7), "needs a bias"), (2, (2, 8), "needs a bias")],
)
def test_attention_refuses_shapes_that_do_not_fit(heads: int, bias: tuple | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(mx.zeros((4, 24)), starts([4]), heads, 1.0, None if bias is None else mx.zeros(bias))
