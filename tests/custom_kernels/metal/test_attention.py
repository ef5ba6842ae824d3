"""The Metal kernels, run on the CPU in the emulation of tests/metal, against float64; and the emulation itself."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import metal
from custom_kernels.backends import kernel_source
from tests.metal.emulation import CLANG, EmulationError, emulated_metal, generated, launch, refused, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")

# Half a unit in the last place of a result, relative to it.
ROUNDING = {mx.float32: 2**-24, mx.float16: 2**-11, mx.bfloat16: 2**-8}
LENGTHS = [1, 31, 32, 33, 0, 127, 128, 0, 511, 2]


def cumulative(lengths: list[int]) -> mx.array:
    return mx.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def normal(shape: tuple[int, ...], dtype: mx.Dtype, offset: float = 0, deviation: float = 1) -> mx.array:
    """Fresh random values."""
    return mx.array(np.random.default_rng().normal(offset, deviation, size=shape).astype(np.float32)).astype(dtype)


def float64(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32)).astype(np.float64)


def check(found: mx.array, expected: np.ndarray, dtype: mx.Dtype, slack: float = 4e-6) -> None:
    """Equal but for one rounding to dtype, and float32 arithmetic on the way; NaN is never equal."""
    assert found.dtype == dtype
    assert found.shape == expected.shape
    assert (np.abs(float64(found) - expected) <= ROUNDING[dtype] * np.abs(expected) + slack).all()


def exact_attention(
    qkv: mx.array, lengths: list[int], heads: int, scale: float, bias: mx.array | None, window: int | None
) -> np.ndarray:
    x = float64(qkv).reshape(qkv.shape[0], 3, heads, qkv.shape[1] // (3 * heads))
    out = []
    for start, length in zip(np.cumsum([0, *lengths]), lengths, strict=False):
        q, k, v = (x[start : start + length, i].transpose(1, 0, 2) for i in range(3))
        scores = q @ k.transpose(0, 2, 1) * scale
        if bias is not None:
            scores = scores + float64(bias)[:, :length, :length]
        if window is not None:
            places = np.arange(length)
            scores = np.where(np.abs(places[:, None] - places) <= window, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
        out.append(
            (weights / weights.sum(axis=-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(length, qkv.shape[1] // 3)
        )
    return np.concatenate(out)


@pytest.mark.parametrize(
    ("lengths", "heads", "dim", "dtype", "with_bias", "window", "seed"),
    [
        (LENGTHS, 1, 32, mx.float16, False, None, 0),
        (LENGTHS, 1, 32, mx.float16, False, None, 1),
        (LENGTHS[:-2], 2, 64, mx.bfloat16, True, None, 2),
        ([1, 512], 1, 64, mx.float32, False, None, 3),
        ([40], 3, 32, mx.float32, True, None, 4),
        ([0, 1, 5, 16, 3], 2, 32, mx.float16, False, None, 5),
        (LENGTHS[:-2], 2, 40, mx.float32, True, 33, 6),
        ([150], 1, 80, mx.float16, False, 64, 7),
        ([30, 3], 1, 128, mx.float32, False, 0, 8),
        ([20, 3], 1, 5, mx.bfloat16, False, None, 9),
    ],
)
def test_attention(
    lengths: list[int], heads: int, dim: int, dtype: mx.Dtype, with_bias: bool, window: int | None, seed: int
) -> None:
    qkv = normal((sum(lengths), 3 * heads * dim), dtype)
    bias = normal((heads, max(lengths) + 1, max(lengths) + 1), dtype) if with_bias else None
    with emulated_metal(seed):
        found = metal.attention(
            qkv, cumulative(lengths), heads, dim**-0.5, bias, max_seqlen=max(lengths), window=window
        )
    check(found, exact_attention(qkv, lengths, heads, dim**-0.5, bias, window), dtype)


def test_attention_of_any_lengths() -> None:
    """Every block of queries belongs to one sequence, and every query to one block: an output written twice fails."""
    rng = np.random.default_rng()
    for seed in range(20):
        lengths = [int(n) for n in rng.integers(0, 70, size=12) * (rng.random(12) < 0.7)]
        lengths[rng.integers(12)] = 1
        qkv = normal((sum(lengths), 24), mx.float32)
        with emulated_metal(seed):
            found = metal.attention(qkv, cumulative(lengths), 1, 0.5, max_seqlen=70)
        check(found, exact_attention(qkv, lengths, 1, 0.5, None, None), mx.float32)


def test_attention_of_large_scores_and_values() -> None:
    qkv = normal((40, 3 * 32), mx.float16, deviation=60)
    qkv[:, 64:] = 65504
    with emulated_metal():
        found = metal.attention(qkv, cumulative([7, 33]), 1, 1.0, max_seqlen=33)
    assert (found == 65504).all(), "an average of equal values, whatever the weights"


def test_sequences_do_not_see_each_other() -> None:
    qkv = normal((73, 3 * 32), mx.float16)
    with emulated_metal():
        alone = metal.attention(qkv[20:53], cumulative([33]), 1, 0.2, max_seqlen=33)
        qkv[:20], qkv[53:] = mx.nan, mx.inf
        among = metal.attention(qkv, cumulative([20, 33, 20]), 1, 0.2, max_seqlen=33)
    assert (among[20:53] == alone).all()


@pytest.mark.parametrize(
    ("width", "dtype", "with_residual", "offset", "seed"),
    [
        (384, mx.float16, True, 0, 0),
        (33, mx.float32, False, 0, 1),
        (33, mx.float32, False, 1e6, 2),
        (1, mx.float32, False, 3, 3),
        (2500, mx.bfloat16, True, 2, 4),
    ],
)
def test_layer_norm(width: int, dtype: mx.Dtype, with_residual: bool, offset: float, seed: int) -> None:
    x, weight, bias = normal((5, width), dtype, offset), normal((width,), dtype), normal((width,), dtype)
    residual = normal((5, width), dtype) if with_residual else None
    with emulated_metal(seed):
        found = metal.layer_norm(x, weight, bias, 1e-5, residual)
    h = float64(x) if residual is None else float64(x) + float64(residual)
    check(found, normalised(h, weight, bias), dtype, slack=1e-5)


def normalised(h: np.ndarray, weight: mx.array, bias: mx.array | None) -> np.ndarray:
    h = h - h.mean(axis=-1, keepdims=True)
    y = h / np.sqrt(np.square(h).mean(axis=-1, keepdims=True) + 1e-5) * float64(weight)
    return y if bias is None else y + float64(bias)


@pytest.mark.parametrize(
    ("width", "dtype", "rows", "norm", "with_bias", "seed"),
    [
        (384, mx.float16, [50, 40, 2], True, True, 0),
        (100, mx.float32, [50, 40], True, False, 1),
        (2500, mx.bfloat16, [50], True, True, 2),
        (64, mx.float32, [50, 40, 2], False, False, 3),
    ],
)
def test_embedding_norm(width: int, dtype: mx.Dtype, rows: list[int], norm: bool, with_bias: bool, seed: int) -> None:
    tokens = 11
    ids = [mx.array(np.random.default_rng().integers(0, n, size=tokens).astype(np.int32)) for n in rows]
    ids[0][:2] = mx.array([0, rows[0] - 1])
    tables = [normal((n, width), dtype) for n in rows]
    weight = normal((width,), dtype) if norm else None
    bias = normal((width,), dtype) if with_bias else None
    with emulated_metal(seed):
        found = metal.embedding_norm(list(zip(tables, ids, strict=True)), weight, bias, 1e-5)
    summed = sum(float64(table)[np.array(i)] for table, i in zip(tables, ids, strict=True))
    check(found, summed if weight is None else normalised(summed, weight, bias), dtype, slack=1e-5)


@pytest.mark.parametrize(
    ("lengths", "width", "dtype", "skip", "normalize", "seed"),
    [
        (LENGTHS, 100, mx.float16, 0, True, 0),
        (LENGTHS, 100, mx.float16, 2, True, 1),
        ([9], 384, mx.float32, 3, False, 2),
        ([5, 0, 3], 129, mx.bfloat16, 3, True, 3),
    ],
)
def test_mean_pool(lengths: list[int], width: int, dtype: mx.Dtype, skip: int, normalize: bool, seed: int) -> None:
    hidden = normal((sum(lengths), width), dtype)
    with emulated_metal(seed):
        found = metal.mean_pool(hidden, cumulative(lengths), skip, normalize)
    expected = np.zeros((len(lengths), width))
    for i, (start, length) in enumerate(zip(np.cumsum([0, *lengths]), lengths, strict=False)):
        if length:
            expected[i] = float64(hidden)[start + skip * (length > skip) : start + length].mean(axis=0)
    if normalize:
        expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    check(found, expected, mx.float32, slack=1e-6)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("total", "heads", "half"), [(1, 1, 4), (5, 3, 16), (19, 2, 32), (9, 12, 32)])
def test_rope(total: int, heads: int, half: int, dtype: mx.Dtype) -> None:
    qkv = normal((total, 6 * heads * half), dtype)
    positions = np.random.default_rng().integers(40, size=total).astype(np.int32)
    angles = np.random.default_rng().uniform(0, 6, size=(40, half)).astype(np.float32)
    cos, sin = np.cos(angles), np.sin(angles)
    with emulated_metal(total):
        found = metal.rope(qkv, mx.array(positions), mx.array(cos), mx.array(sin), heads)
    expected = float64(qkv).reshape(total, 3, heads, 2, half)
    turn = (cos + 1j * sin)[positions][:, None, None].astype(np.complex128)
    turned = (expected[:, :2, :, 0] + 1j * expected[:, :2, :, 1]) * turn
    expected[:, :2, :, 0], expected[:, :2, :, 1] = turned.real, turned.imag
    check(found, expected.reshape(qkv.shape), dtype)


def test_sources_are_ascii() -> None:
    for name in ("attention", "embedding_norm", "layer_norm", "mean_pool", "position_ids", "rope"):
        assert kernel_source("metal", name).isascii()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("lengths", [[1], [0, 0, 3], LENGTHS, [1] * 300])
def test_position_ids(lengths: list[int], seed: int) -> None:
    with emulated_metal(seed):
        found = metal.position_ids(cumulative(lengths), sum(lengths))
    assert found.dtype == mx.int32
    assert found.tolist() == [p for n in lengths for p in range(n)]


@pytest.mark.skipif(CLANG is None, reason="needs clang++")
@pytest.mark.parametrize("lengths", [[5, 0, 28], [1] * 9])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_clang_takes_the_sources_as_they_are(dtype: mx.Dtype, lengths: list[int]) -> None:
    """With few sequences short arrays come from the constant address space, with many from the device's."""
    x, cu_seqlens = normal((sum(lengths), 96), dtype), cumulative(lengths)
    ids, table, ones = mx.zeros((sum(lengths),), dtype=mx.int32), normal((5, 96), dtype), mx.ones((96,))
    bias = normal((1, 30, 30), mx.float32)
    with emulated_metal() as sources:
        metal.attention(x, cu_seqlens, 1, 0.2, bias, max_seqlen=30, window=3)
        metal.embedding_norm([(table, ids)] * 2, ones, ones, 1e-5)
        metal.layer_norm(x, ones, None, 1e-5, x)
        metal.mean_pool(x, cu_seqlens, 0, True)
        metal.position_ids(cu_seqlens, sum(lengths))
        metal.rope(x, mx.zeros((sum(lengths),), dtype=mx.int32), mx.zeros((40, 4)), mx.zeros((40, 4)), 4)
    assert len(sources) == 6
    assert [refused(source) for source in sources] == [""] * 6


@pytest.mark.skipif(CLANG is None, reason="needs clang++")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("const device int* same = cu_seqlens;", "cannot initialize a variable of type 'device int"),
        ("simdgroup_matrix<float, 8, 8> m; float& element = m.thread_elements()[0];", "vector element"),
        ("const float most = metal::max(1.0f, 1);", "ambiguous"),
    ],
)
def test_clang_refuses_what_metal_would(line: str, message: str) -> None:
    with emulated_metal() as sources:
        metal.mean_pool(normal((5, 32), mx.float16), cumulative([5]))
    assert refused(sources[0]) == ""
    assert message in refused(sources[0].replace("const int end", f"{line}\nconst int end"))


# The emulation itself: a fault put into a kernel is found, and named.


def faulty(kernel: str, old: str, new: str, seed: int) -> None:
    def edit(source: str) -> str:
        assert old in source
        return source.replace(old, new, 1)

    x, ones = normal((4, 160), mx.float32), mx.ones((160,))
    with emulated_metal(seed, edit):
        if kernel == "layer_norm":
            metal.layer_norm(x, ones, ones, 1e-5)
        elif kernel == "attention":
            metal.attention(normal((70, 96), mx.float16), cumulative([0, 70]), 1, 0.2, max_seqlen=70)
        else:
            metal.mean_pool(x, cumulative([4]))


BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
TILES_READY = "value_tile[key * STRIDE + d] = v;\n  }\n"
STORE = "if (query < length && d < DIM) {\n      out"


@pytest.mark.parametrize(
    ("kernel", "old", "new", "message"),
    [
        # A barrier is missing: before the read, and before the next write.
        ("layer_norm", BARRIER, "", "race: partial_sum|partial_sum.* nobody has written"),
        ("attention", TILES_READY + "  " + BARRIER, TILES_READY, "race: .*_tile|_tile.* nobody has written"),
        ("attention", BARRIER, "", "race: (key|value)_tile"),
        ("mean_pool", "  }\n  " + BARRIER, "  }", "race: partial"),
        # Not all threads come.
        ("layer_norm", "float value[", f"if (lane == 0) {BARRIER}\nfloat value[", "divergent threadgroup"),
        ("layer_norm", BARRIER, f"if (lane == 0) {{ {BARRIER} }} else {{\n{BARRIER} }}", "divergent threadgroup"),
        ("layer_norm", "sum = simd_sum(sum);", "if (lane != 3) sum = simd_sum(sum);", "divergent"),
        ("attention", "if (!busy) {", "if (!busy || lane == 9) {", "divergent"),
        # An index is one off, or two threads share a place.
        ("attention", STORE, STORE.replace("<", "<=", 1), r"write out of bounds: out\[22\d\d\] of 2240"),
        ("attention", "base + key < length", "base + key <= length", r"read out of bounds: qkv\[67\d\d\] of 6720"),
        ("attention", "const int middle = (sequence + above) / 2;", "const int middle = above + 1;", "cu_seqlens"),
        ("mean_pool", "partial[ACROSS * DOWN]", "partial[ACROSS * DOWN - 1]", r"write out of bounds: partial\[511\]"),
        ("layer_norm", "start = size_t(row) * WIDTH", "start = size_t(row / 2) * WIDTH", r"race: out\["),
        # The device has less memory, and keeps its address spaces apart.
        ("mean_pool", "partial[ACROSS * DOWN]", "partial[8192]", "a threadgroup has 32768"),
        ("mean_pool", "const int end", "const device int* same = cu_seqlens;\nconst int end", "does not compile"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_faults_are_found(kernel: str, old: str, new: str, message: str, seed: int) -> None:
    with pytest.raises(EmulationError, match=message):
        faulty(kernel, old, new, seed)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_numbers_round_as_on_a_device(dtype: mx.Dtype) -> None:
    halfway = np.float32(1 + 2.0 ** np.arange(-13, -1)[:, None] * np.arange(1, 16, 2))
    extreme = [0, -0.0, 65504, 65519, 65520, 1e-8, 6e-8, 3e38, 3.4e38, np.inf, -np.inf, np.nan]
    random = np.random.default_rng().integers(0, 2**32, size=4096, dtype=np.uint32).view(np.float32)
    x = mx.array(np.concatenate([halfway.ravel(), -halfway.ravel(), np.float32(extreme), random]))
    kernel = mx.fast.metal_kernel(
        name="cast",
        input_names=["x"],
        output_names=["out"],
        source="const uint i = thread_position_in_grid.x; out[i] = T(x[i]);",
    )
    call = {"template": [("T", dtype)], "grid": (x.size, 1, 1), "threadgroup": (64, 1, 1)}
    call |= {"output_shapes": [x.shape], "output_dtypes": [dtype]}
    (found,) = launch(generated(kernel, [x], call), ["x"], ["out"], 0, inputs=[x], **call)
    np.testing.assert_array_equal(float64(found), float64(x.astype(dtype)))
