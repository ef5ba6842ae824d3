"""Packed attention, the embedding layer and mean pooling against float64, on every back end that this machine has."""

import math
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import custom_kernels.cuda
import custom_kernels.metal
from custom_kernels import (
    activate,
    attention,
    backends,
    embedding_norm,
    layer_norm,
    mean_pool,
    rope,
    transfer,
    trust,
    use_kernels,
)
from custom_kernels.activation import ACTIVATIONS
from custom_kernels.encoder import LayerWeights, reference_short_encoder, short_encoder
from custom_kernels.layer_norm import reference_layer_norm
from custom_kernels.packed import position_ids
from tests.conftest import forget_kernels

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
# A few units in the last place of values around 1 to 4: weights and result are rounded once each.
TOLERANCE = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 3.2e-2}
BATCHES = {
    "one token": [1],
    "short": [1, 16, 7, 0, 2, 15, 16, 1, 9, 3],
    "up to 32": [31, 32, 1, 0, 17, 8],
    "up to 64": [33, 64, 1, 63, 40],
    "edges": [1, 31, 32, 33, 127, 128],
    "one text": [129],
    "long": [511, 512],
    "one long among short": [1, 512, 2, 0, 3, 1, 1, 5] + [1] * 40,
    "empty": [0, 3, 0, 0, 17, 0],
}


def present(op: str) -> list[Any]:
    """The back ends to test `op` on, those that this machine lacks marked to be skipped."""
    found = [pytest.param("reference")]
    for name, module in (("metal", custom_kernels.metal), ("cuda", custom_kernels.cuda)):
        here = getattr(mx, name).is_available()
        reason = f"MLX finds no {name} device here" if not here else f"there is no {name} kernel of {op}"
        found.append(pytest.param(name, marks=pytest.mark.skipif(not (here and hasattr(module, op)), reason=reason)))
    return found


def random(*shape: int, dtype: str = "float32", scale: float = 1.0) -> mx.array:
    return mx.array((np.random.default_rng().normal(size=shape) * scale).astype(np.float32)).astype(DTYPES[dtype])


def poison(*shape: int, dtype: str) -> None:
    """Free buffers of this size that are full of NaN: a place that a kernel leaves out would show."""
    mx.eval([mx.full(shape, mx.nan, dtype=DTYPES[dtype]) for _ in range(4)])


def starts(lengths: list[int]) -> mx.array:
    return mx.array(np.cumsum([0, *lengths]).astype(np.int32))


def exact(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32)).astype(np.float64)


def error(found: mx.array, expected: np.ndarray) -> float:
    """The largest difference, relative where values are above 1; NaN where any is."""
    assert found.shape == expected.shape
    return float((np.abs(exact(found) - expected) / np.maximum(np.abs(expected), 1)).max(initial=0))


def exact_attention(
    qkv: mx.array,
    lengths: list[int],
    heads: int,
    scale: float,
    bias: mx.array | None = None,
    window: int | None = None,
) -> np.ndarray:
    rows = exact(qkv)
    width = rows.shape[1] // 3
    out = np.zeros((len(rows), width))
    begin = 0
    for length in lengths:
        part = rows[begin : begin + length].reshape(length, 3, heads, width // heads)
        q, k, v = part.transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1) * scale
        if bias is not None:
            scores = scores + exact(bias)[:, :length, :length]
        if window is not None:
            place = np.arange(length)
            scores[:, np.abs(place[:, None] - place) > window] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-1e300))
        weights /= weights.sum(axis=-1, keepdims=True)
        out[begin : begin + length] = (weights @ v).transpose(1, 0, 2).reshape(length, width)
        begin += length
    return out


def limit(backend: str, dtype: str) -> float:
    """MLX's own attention rounds the scores as well, and may use TF32 on CUDA."""
    if backend != "reference":
        return TOLERANCE[dtype]
    return max(TOLERANCE[dtype] * 4, 4e-3 if mx.cuda.is_available() else 0)


@pytest.mark.parametrize("head_dim", [32, 64])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("backend", present("attention"))
def test_attention(backend: str, batch: str, dtype: str, head_dim: int) -> None:
    lengths, heads, scale = BATCHES[batch], 3, head_dim**-0.5
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
    bias = None if bias_dtype is None else random(heads, 153, 153, dtype=bias_dtype)
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", present("attention")[1:])
def test_a_nan_stays_in_its_text(backend: str, dtype: str) -> None:
    lengths, heads = [40, 9, 130, 1], 2
    for sick in range(len(lengths)):
        qkv = random(sum(lengths), 3 * heads * 32, dtype=dtype)
        begin = sum(lengths[:sick])
        qkv[begin : begin + lengths[sick]] = mx.nan
        found = exact(attention(qkv, starts(lengths), heads, 1.0, max_seqlen=130, backend=backend))
        assert np.isnan(found[begin : begin + lengths[sick]]).all()
        assert np.isfinite(np.delete(found, np.s_[begin : begin + lengths[sick]], axis=0)).all()


@pytest.mark.parametrize("backend", present("attention"))
def test_attention_of_many_texts(backend: str) -> None:
    """Enough texts that a block searches for its own in more than one step, and every tile count."""
    lengths = [int(n) for n in np.random.default_rng().integers(0, 20, size=1500)] + [300]
    qkv = random(sum(lengths), 3 * 32, dtype="float16")
    found = attention(qkv, starts(lengths), 1, 0.2, max_seqlen=300, backend=backend)
    assert error(found, exact_attention(qkv, lengths, 1, 0.2)) <= limit(backend, "float16")


@pytest.mark.parametrize("backend", present("attention"))
def test_attention_of_a_slice(backend: str) -> None:
    """Contiguous rows whose address is not that of a whole vector."""
    base = random(50 * 192 + 1, dtype="float16")
    qkv = base[1:].reshape(50, 192)
    found = attention(qkv, starts([20, 30]), 2, 0.2, max_seqlen=30, backend=backend)
    assert error(found, exact_attention(qkv, [20, 30], 2, 0.2)) <= limit(backend, "float16")


@pytest.mark.parametrize("backend", present("attention"))
def test_attention_inside_compile_and_without_a_bound(backend: str) -> None:
    lengths = [5, 0, 40]
    qkv, cu_seqlens = random(45, 192, dtype="float16"), starts(lengths)
    compiled = mx.compile(lambda x, c: attention(x * 2, c, 2, 0.2, max_seqlen=40, backend=backend) + 1)
    expected = exact_attention(qkv * 2, lengths, 2, 0.2)
    assert error(compiled(qkv, cu_seqlens), expected + 1) <= limit(backend, "float16") * 2
    assert error(attention(qkv * 2, cu_seqlens, 2, 0.2, backend=backend), expected) <= limit(backend, "float16")


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
        ({"bias": mx.zeros((1, 3, 3))}, "bias \\[1, L, L\\]"),
        ({"bias": mx.zeros((2, 4, 4))}, "bias \\[1, L, L\\]"),
        ({"backend": "vulkan"}, "no backend 'vulkan'"),
    ],
)
def test_bad_attention_input(change: dict[str, Any], message: str) -> None:
    arguments = {"qkv": mx.zeros((4, 96)), "cu_seqlens": starts([4]), "num_heads": 1, "scale": 1.0, "max_seqlen": 4}
    with pytest.raises((ValueError, TypeError), match=message):
        attention(**(arguments | change))


@pytest.mark.parametrize("norm", ["weight and bias", "weight", "none"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [33, 384, 768, 2048])
@pytest.mark.parametrize("backend", present("embedding_norm"))
def test_embedding_norm(backend: str, width: int, dtype: str, count: int, norm: str) -> None:
    rng = np.random.default_rng()
    lookups = [
        (random(v, width, dtype=dtype), mx.array(rng.integers(0, v, size=37).astype(np.int32)))
        for v in (101, 50, 2)[:count]
    ]
    weight = None if norm == "none" else random(width, dtype=dtype)
    bias = random(width, dtype=dtype) if norm == "weight and bias" else None
    expected = sum(exact(table)[np.array(ids)] for table, ids in lookups)
    if weight is not None:
        centred = expected - expected.mean(axis=-1, keepdims=True)
        expected = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-12) * exact(weight)
    if bias is not None:
        expected = expected + exact(bias)
    found = embedding_norm(lookups, weight, bias, 1e-12, backend=backend)
    assert found.dtype == DTYPES[dtype]
    assert error(found, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("backend", present("embedding_norm"))
def test_embedding_norm_of_nothing(backend: str) -> None:
    found = embedding_norm([(mx.zeros((3, 8)), mx.zeros((0,), dtype=mx.int32))], None, None, 1e-5, backend=backend)
    mx.eval(found)
    assert found.shape == (0, 8)


@pytest.mark.parametrize(
    ("lookups", "message"),
    [
        ([], "1 to 3 lookups"),
        ([(mx.zeros((3, 8)), mx.zeros((4,), dtype=mx.int32))] * 4, "1 to 3 lookups"),
        ([(mx.zeros((3, 8)), mx.zeros((4,)))], "ids int32"),
        ([(mx.zeros((8,)), mx.zeros((4,), dtype=mx.int32))], "tables"),
        (
            [(mx.zeros((3, 8)), mx.zeros((4,), dtype=mx.int32)), (mx.zeros((3, 9)), mx.zeros((4,), dtype=mx.int32))],
            "tables alike",
        ),
        ([(mx.zeros((3, 8), dtype=mx.int32), mx.zeros((4,), dtype=mx.int32))], "float32"),
    ],
)
def test_bad_embedding_input(lookups: list[tuple[mx.array, mx.array]], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        embedding_norm(lookups, None, None, 1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("skip", [0, 4])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [33, 384, 768, 4096])
@pytest.mark.parametrize("backend", present("mean_pool"))
def test_mean_pool(backend: str, width: int, dtype: str, skip: int, normalize: bool) -> None:
    lengths = [1, 31, 0, 4, 5, 512, 33, 0]
    hidden = random(sum(lengths), width, dtype=dtype)
    rows, expected, begin = exact(hidden), np.zeros((len(lengths), width)), 0
    for i, length in enumerate(lengths):
        kept = rows[begin + (skip if length > skip else 0) : begin + length]
        if length:
            expected[i] = kept.mean(axis=0)
        begin += length
    if normalize:
        expected /= np.maximum(np.linalg.norm(expected, axis=-1, keepdims=True), 1e-12)
    hidden = hidden[:]
    found = mean_pool(hidden, starts(lengths), skip, normalize, backend=backend)
    assert found.dtype == mx.float32
    assert error(found, expected) <= 2e-6


@pytest.mark.parametrize("backend", present("mean_pool"))
def test_mean_pool_of_a_prompt_of_nan_and_of_a_slice(backend: str) -> None:
    hidden = random(7 * 384 + 1, dtype="float16")[1:].reshape(7, 384)
    expected = exact(hidden)[2:].mean(axis=0, keepdims=True)
    hidden = mx.where(mx.arange(7)[:, None] < 2, mx.nan, hidden).astype(mx.float16)
    assert error(mean_pool(hidden, starts([7]), 2, backend=backend), expected) <= 2e-6


@pytest.mark.parametrize("backend", present("mean_pool"))
def test_mean_pool_of_nothing(backend: str) -> None:
    for lengths in ([], [0, 0]):
        found = mean_pool(mx.zeros((0, 8)), starts(lengths), backend=backend)
        assert np.array(found).tolist() == [[0.0] * 8] * len(lengths)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": mx.zeros((4,))}, "hidden"),
        ({"hidden": mx.zeros((4, 8), dtype=mx.int32)}, "hidden is"),
        ({"cu_seqlens": mx.array([0.0, 4.0])}, "cu_seqlens"),
        ({"skip": -1}, "skip of at least 0"),
        ({"backend": "vulkan"}, "no backend 'vulkan'"),
    ],
)
def test_bad_pool_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        mean_pool(**({"hidden": mx.zeros((4, 8)), "cu_seqlens": starts([4])} | change))


# A kernel is checked before it is trusted. A back end is played by functions put in the place of the CUDA launches,
# so that this runs anywhere.


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("backend", present("position_ids"))
def test_position_ids(backend: str, batch: str) -> None:
    found = position_ids(starts(BATCHES[batch]), sum(BATCHES[batch]), backend=backend)
    assert found.dtype == mx.int32
    assert found.tolist() == [p for n in BATCHES[batch] for p in range(n)]


@pytest.mark.parametrize("gate", [None, "first", "second"])
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 2), (37, 1536), (1000, 70), (5, 4100)])
@pytest.mark.parametrize("backend", present("activate"))
def test_activate(backend: str, rows: int, width: int, dtype: str, act: str, gate: str | None) -> None:
    x = random(rows, width, dtype=dtype, scale=4)
    values = exact(x)
    first, second = np.split(values, 2, axis=1) if gate else (values, values)
    active, other = (second, first) if gate == "second" else (first, second if gate else 1.0)
    if act == "gelu":
        expected = active * 0.5 * np.vectorize(math.erfc)(-active / math.sqrt(2))
    elif act == "gelu_tanh":
        expected = active * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (active + 0.044715 * active**3)))
    else:
        expected = np.maximum(active, 0) if act == "relu" else active / (1 + np.exp(-active))
    found = activate(x, act, gate, backend=backend)
    assert found.dtype == DTYPES[dtype]
    # MLX's ops round each step.
    assert error(found, expected * other) <= TOLERANCE[dtype] * (1 if backend == "cuda" else 8)


@pytest.mark.parametrize("backend", present("activate"))
def test_activate_of_a_slice(backend: str) -> None:
    x = random(7 * 48 + 1, dtype="float16")[1:].reshape(7, 48)
    assert error(activate(x, "relu", backend=backend), np.maximum(exact(x), 0)) == 0


def test_activate_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="swish"):
        activate(mx.zeros((2, 4)), "swish")
    with pytest.raises(ValueError, match="even N"):
        activate(mx.zeros((2, 5)), "silu", "first")
    with pytest.raises(TypeError, match="int32"):
        activate(mx.zeros((2, 4), dtype=mx.int32), "silu")


def normed(y: np.ndarray, weight: mx.array, bias: mx.array, eps: float) -> np.ndarray:
    y = y - y.mean(axis=1, keepdims=True)
    return y / np.sqrt((y**2).mean(axis=1, keepdims=True) + eps) * exact(weight) + exact(bias)


def exact_layers(
    x: mx.array,
    lengths: list[int],
    layers: list[LayerWeights],
    heads: int,
    scale: float,
    eps: float,
    act: str,
    bias: mx.array | None,
) -> np.ndarray:
    def rounded(y: np.ndarray) -> mx.array:
        return mx.array(y.astype(np.float32))

    y = exact(x)
    for w in layers:
        qkv = y @ exact(w.qkv_weight).T + exact(w.qkv_bias)
        attended = exact_attention(rounded(qkv), lengths, heads, scale, bias)
        y = normed(
            y + attended @ exact(w.out_weight).T + exact(w.out_bias),
            w.attention_norm_weight,
            w.attention_norm_bias,
            eps,
        )
        inner = exact(ACTIVATIONS[act](rounded(y @ exact(w.up_weight).T + exact(w.up_bias))))
        y = y + inner @ exact(w.down_weight).T + exact(w.down_bias)
        y = normed(y, w.output_norm_weight, w.output_norm_bias, eps)
    return y


def random_layer(hidden: int, inner: int, dtype: str) -> LayerWeights:
    shapes = [(3 * hidden, hidden), (hidden, hidden), (hidden,), (inner, hidden), (hidden, inner), (hidden,)]
    scales = [0.5 * shape[-1] ** -0.5 if len(shape) > 1 else 1.0 for shape in shapes]
    pairs = [
        (random(*shape, dtype=dtype, scale=s), random(shape[0], dtype=dtype))
        for shape, s in zip(shapes, scales, strict=True)
    ]
    return LayerWeights(*(array for pair in pairs for array in pair))


@pytest.mark.parametrize(
    ("lengths", "hidden", "heads", "inner", "act", "biased", "dtype"),
    [
        ([16], 384, 12, 1536, "gelu", None, "float16"),
        ([1], 384, 12, 1536, "gelu", None, "float16"),
        ([5, 0, 9, 1], 384, 12, 1536, "gelu", None, "bfloat16"),
        ([33], 768, 12, 3072, "gelu", "float16", "float16"),
        ([64, 3], 768, 12, 3072, "gelu_tanh", "float32", "float16"),
        ([128], 384, 12, 1536, "relu", None, "float16"),
        ([127], 1024, 16, 4096, "gelu", None, "float16"),
        ([1] * 128, 32, 4, 64, "silu", None, "float16"),
        ([200, 0, 1, 140], 384, 12, 1536, "gelu", None, "float16"),
        ([150], 256, 4, 1024, "gelu", "float16", "bfloat16"),
        ([500, 12], 256, 4, 1024, "gelu", None, "float16"),
        ([40, 7], 256, 2, 96, "gelu", "bfloat16", "bfloat16"),
    ],
)
def test_short_encoder(
    lengths: list[int], hidden: int, heads: int, inner: int, act: str, biased: str | None, dtype: str
) -> None:
    layers = [random_layer(hidden, inner, dtype) for _ in range(3)]
    x = random(sum(lengths), hidden, dtype=dtype)
    bias = None if biased is None else random(heads, max(lengths) + 2, max(lengths) + 2, dtype=biased)
    arguments = (layers, heads, (hidden // heads) ** -0.5, 1e-5, act, bias)
    expected = exact_layers(x, lengths, *arguments)
    # What is rounded between the steps adds up over the layers.
    bound = 12 * TOLERANCE[dtype]
    assert error(reference_short_encoder(x, starts(lengths), *arguments), expected) <= bound
    if mx.cuda.is_available():
        kernel = short_encoder(len(x), layers, heads, 1e-5, act, bias)
        assert kernel is custom_kernels.cuda.short_encoder
        for _ in range(3):
            found = kernel(x, starts(lengths), *arguments)
            assert found.dtype == DTYPES[dtype]
            assert error(found, expected) <= bound


def test_long_batches_and_float32_have_no_short_encoder() -> None:
    half, full = random_layer(32, 64, "float16"), random_layer(32, 64, "float32")
    assert short_encoder(4097, [half], 4, 1e-5, "gelu", None) is None
    assert short_encoder(16, [full], 4, 1e-5, "gelu", None) is None


@pytest.mark.parametrize("sizes", [[1], [7, 0, 3], [70000, 300]])
def test_transfers_give_back_what_was_sent(sizes: list[int]) -> None:
    for _ in range(9):  # more than there are blocks in flight
        sent = [np.random.default_rng().integers(-(2**24), 2**24, size=n).astype(np.int32) for n in sizes]
        waits = [transfer.to_host(array.astype(mx.float32)) for array in transfer.to_device(*sent)]
        for array, wait in zip(sent, waits, strict=True):
            np.testing.assert_array_equal(wait(), array)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No verdict yet, and a machine that seems to have a GPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget_kernels(monkeypatch)
    monkeypatch.setattr(backends, "default_backend", lambda: "cuda")
    monkeypatch.delenv("MLX_EMBED_KERNELS", raising=False)
    yield
    use_kernels(None)


def normal(x: mx.array) -> mx.array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * mx.rsqrt(mx.square(centred).mean(axis=-1, keepdims=True) + 1e-5)


def play(monkeypatch: pytest.MonkeyPatch, kernel: Any) -> list[tuple[int, ...]]:
    """Let `kernel` be the CUDA layer_norm; returns the shapes that it was called with."""
    calls: list[tuple[int, ...]] = []

    def called(x: mx.array, *rest: Any) -> mx.array:
        calls.append(x.shape)
        return kernel(x)

    monkeypatch.setattr(custom_kernels.cuda, "layer_norm", called)
    return calls


def use_often(compiled: bool) -> None:
    """Three times in float32, then in float16; every result must be right."""
    x, ones = random(6, 32), mx.ones((32,))

    def norm(x: mx.array) -> mx.array:
        return layer_norm(x, ones, None, 1e-5, mx.zeros_like(x))

    used = mx.compile(norm) if compiled else norm
    for _ in range(3):
        assert error(used(x), exact(normal(x))) <= 1e-5
    assert error(used(x.astype(mx.float16)), exact(normal(x))) <= 1e-2


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.usefixtures("unchecked")
def test_a_right_kernel_is_checked_once_a_variant(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    def sample(variant: Any, load: None) -> Any:
        return (random(5, variant.width).astype(variant.x), mx.ones((variant.width,)), None, variant.eps, None), {}

    # A kernel that ignores the weights is right where they are 1.
    module = import_module("custom_kernels.layer_norm")
    monkeypatch.setattr(module, "LAYER_NORM", replace(module.LAYER_NORM, sample=sample))
    calls = play(monkeypatch, normal)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use_often(compiled)
    assert calls.count((5, 32)) == 2, "one check for each dtype"
    assert calls.count((6, 32)) == (2 if compiled else 4)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("broken", ["wrong", "nan", "shape", "raises"])
@pytest.mark.usefixtures("unchecked")
def test_a_broken_kernel_is_switched_off(monkeypatch: pytest.MonkeyPatch, broken: str, compiled: bool) -> None:
    def kernel(x: mx.array) -> mx.array:
        if broken == "raises":
            raise RuntimeError("no such instruction")
        return {"wrong": x * 1.1, "nan": x * mx.nan, "shape": x[:1]}[broken]

    calls = play(monkeypatch, kernel)
    with pytest.warns(RuntimeWarning, match="cuda kernel of layer_norm is switched off") as caught:
        use_often(compiled)
    assert len(caught) == 1
    assert len(calls) == 1


@pytest.mark.usefixtures("unchecked")
def test_the_next_process_trusts_what_agreed_and_checks_what_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = random(6, 32), random(32)
    calls = play(monkeypatch, lambda x: reference_layer_norm(x, weight, None, 1e-5, mx.zeros_like(x)))
    module = import_module("custom_kernels.layer_norm")
    sample = (random(5, 32), weight, None, 1e-5, mx.zeros((5, 32))), {}
    monkeypatch.setattr(module, "LAYER_NORM", replace(module.LAYER_NORM, sample=lambda *_: sample))

    def checks() -> int:
        forget_kernels(monkeypatch)
        calls.clear()
        layer_norm(x, weight, None, 1e-5, mx.zeros_like(x))
        return calls.count((5, 32))

    assert [checks(), checks()] == [1, 0]
    monkeypatch.setattr(trust, "_sources", lambda: "other code")
    assert [checks(), checks()] == [1, 0]
    monkeypatch.setattr(trust, "_machine", lambda: ("another driver",))
    assert [checks(), checks()] == [1, 0]
    monkeypatch.setattr(trust, "_machine", lambda: ("where it is wrong",))
    calls = play(monkeypatch, lambda x: x)
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="switched off"):
            assert checks() == 1
    # Nowhere to remember: a file is where the folder should be.
    monkeypatch.setenv("XDG_CACHE_HOME", __file__)
    calls = play(monkeypatch, lambda x: reference_layer_norm(x, weight, None, 1e-5, mx.zeros_like(x)))
    assert [checks(), checks()] == [1, 1]


def test_trust_is_of_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for info in ({}, {"device_name": "M1"}, {"device_name": "M1", "architecture": "applegpu_g13s"}):
        monkeypatch.setattr(mx, "device_info", lambda info=info: info)
        seen.append(trust._machine.__wrapped__())
    assert len(set(seen)) == 3


def test_trust_ends_where_the_code_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = Path(trust.__file__).parent
    copy = Path(shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.so", "__pycache__")))
    monkeypatch.setattr(trust, "__file__", str(copy / "trust.py"))
    seen = {trust._sources.__wrapped__()}
    for name in ("cuda/products.cu", "metal/attention.metal", "cuda/__init__.py", "linear.py"):
        (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
        seen.add(trust._sources.__wrapped__())
    assert len(seen) == 5


@pytest.mark.usefixtures("unchecked")
def test_a_kernel_that_was_not_promised_is_left_out_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(x: mx.array) -> mx.array:
        raise NotImplementedError

    calls = play(monkeypatch, kernel)
    x, ones = random(6, 32), mx.ones((32,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert error(layer_norm(x, ones, None, 1e-5, mx.zeros_like(x)), exact(normal(x))) <= 1e-5
    assert len(calls) == 1


@pytest.mark.usefixtures("unchecked")
def test_kernels_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = play(monkeypatch, lambda x: x)
    x, ones = random(6, 32), mx.ones((32,))
    monkeypatch.setenv("MLX_EMBED_KERNELS", "reference")
    assert error(layer_norm(x, ones, None, 1e-5, mx.zeros_like(x)), exact(normal(x))) <= 1e-5
    monkeypatch.delenv("MLX_EMBED_KERNELS")
    use_kernels(False)
    assert error(layer_norm(x, ones, None, 1e-5, mx.zeros_like(x)), exact(normal(x))) <= 1e-5
    assert not calls
    use_kernels(None)
    with pytest.warns(RuntimeWarning, match="switched off"):
        layer_norm(x, ones, None, 1e-5, x)
    assert calls


@pytest.mark.skipif(not mx.cuda.is_available(), reason="MLX finds no cuda device here")
@pytest.mark.parametrize(
    "source",
    ["this is no C++;", 'extern "C" __global__ void layer_norm(const void* x, const void*, void* out) {}', ""],
)
@pytest.mark.usefixtures("unchecked")
def test_a_broken_source_is_switched_off(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(custom_kernels.cuda, "source", lambda *_: source)
    monkeypatch.setattr(custom_kernels.cuda, "_compiled", custom_kernels.cuda._compiled.__wrapped__)
    with pytest.warns(RuntimeWarning, match="cuda kernel of layer_norm is switched off"):
        use_often(compiled=False)


@pytest.mark.skipif(backends.default_backend() is None, reason="MLX finds no Metal or CUDA device here")
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_shipped_kernel_passes_its_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget_kernels(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x, w = random(6, 384, dtype=dtype), random(384, dtype=dtype)
        layer_norm(x, w, w, 1e-12, x)
        embedding_norm([(x, mx.array([1, 2]))], w, w, 1e-12)
        mean_pool(x, starts([6]), 0, True)
        attention(x, starts([6]), 4, 0.2, max_seqlen=6)
        activate(x, "gelu")
        position_ids(starts([6]), 6)
        rope(x, mx.zeros((6,), dtype=mx.int32), mx.ones((3, 16)), mx.ones((3, 16)), 4)
        np.testing.assert_array_equal(transfer.to_host(mx.ones((3,)))(), np.ones(3))
