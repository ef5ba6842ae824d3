"""The C++ kernels against float64 numpy, on every instruction set of this machine and several thread counts."""

import itertools
import math
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from custom_kernels import cpu

pytestmark = pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")

WIDTHS = [1, 2, 7, 30, 32, 33, 100, 384, 385, 768]
erf = np.vectorize(math.erf, otypes=[float])


@pytest.fixture(params=["", "avx2", "baseline"], ids=["best", "avx2", "baseline"], autouse=True)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    if not cpu.available():
        pytest.skip(cpu.why_unavailable())
    library, best = cpu._library()
    chosen = library.mlx_embed_choose(request.param.encode()).decode()
    if (request.param == "avx2" and chosen != "AVX2") or (request.param == "baseline" and chosen == best):
        library.mlx_embed_choose(b"")
        pytest.skip(f"this machine has no {request.param}")
    yield chosen
    library.mlx_embed_choose(b"")


@pytest.fixture(params=[1, 2, 3, 7])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = cpu.num_threads()
    cpu.set_num_threads(request.param)
    yield request.param
    cpu.set_num_threads(before)


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs start as NaN, so that whatever an op leaves unwritten shows."""
    monkeypatch.setattr(cpu, "empty", lambda shape: np.full(shape, np.nan, np.float32))


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def normal(generator: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * generator.standard_normal(shape)).astype(np.float32)


def starts(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def close(found: np.ndarray, wanted: np.ndarray, tolerance: float = 6e-6) -> None:
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- float64 references


def activate64(x: np.ndarray, name: str | None) -> np.ndarray:
    if name == "gelu":
        return x * 0.5 * (1 + erf(x / math.sqrt(2)))
    if name == "gelu_tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    if name == "relu":
        return np.maximum(x, 0)
    if name == "silu":
        return x / (1 + np.exp(-x))
    return x


def norm64(
    x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float, residual: np.ndarray | None = None
) -> np.ndarray:
    h = x.astype(np.float64) + (0 if residual is None else residual.astype(np.float64))
    if weight is None:
        return h
    h = h - h.mean(-1, keepdims=True)
    y = h / np.sqrt((h * h).mean(-1, keepdims=True) + eps) * weight
    return y if bias is None else y + bias


def linear64(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    activation: str | None = None,
    residual: np.ndarray | None = None,
) -> np.ndarray:
    y = x.astype(np.float64) @ weight.astype(np.float64).T + (0 if bias is None else bias)
    return activate64(y, activation) + (0 if residual is None else residual)


def attention64(
    qkv: np.ndarray,
    cu: np.ndarray,
    heads: int,
    scale: float,
    bias: np.ndarray | None = None,
    window: int | None = None,
) -> np.ndarray:
    total, width = qkv.shape
    out = np.zeros((total, width // 3))
    for start, end in itertools.pairwise(cu):
        n = end - start
        if n == 0:
            continue
        q, k, v = qkv[start:end].astype(np.float64).reshape(n, 3, heads, -1).transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1) * scale
        if bias is not None:
            scores = scores + bias[:, :n, :n]
        if window is not None:
            i = np.arange(n)
            scores = np.where(abs(i[:, None] - i) <= window, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out[start:end] = (weights @ v).transpose(1, 0, 2).reshape(n, -1)
    return out


# ---------------------------------------------------------------- linear


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("out_features", [1, 31, 32, 33, 100, 385])
def test_linear_of_any_shape(width: int, out_features: int) -> None:
    g = rng(width, out_features)
    weight, bias = normal(g, out_features, width, scale=width**-0.5), normal(g, out_features)
    packed = cpu.Linear(weight, bias)
    for rows in (0, 1, 5, 14, 15, 29, 131):
        x, residual = normal(g, rows, width), normal(g, rows, out_features)
        close(cpu.linear(x, packed, residual=residual), linear64(x, weight, bias, residual=residual))


@pytest.mark.parametrize("activation", [None, "gelu", "gelu_tanh", "relu", "silu"])
def test_linear_epilogue(activation: str | None, threads: int) -> None:
    g = rng(1)
    weight, x, residual = normal(g, 70, 50, scale=0.1), normal(g, 300, 50), normal(g, 300, 70)
    for bias in (None, normal(g, 70)):
        packed = cpu.Linear(weight, bias)
        close(cpu.linear(x, packed, activation), linear64(x, weight, bias, activation))
        close(cpu.linear(x, packed, activation, residual), linear64(x, weight, bias, activation, residual))


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
def test_activations_over_the_whole_range(activation: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 40001), [-1e30, -1e4, -100, -88, 0, 88, 100, 1e4]]).astype(np.float32)
    identity = cpu.Linear(np.ones((1, 1), np.float32))
    with np.errstate(over="ignore"):
        wanted = activate64(x.astype(np.float64), activation)
    found = cpu.linear(x[:, None], identity, activation)[:, 0]
    np.testing.assert_allclose(found, wanted, rtol=3e-7, atol=1e-6)


# ---------------------------------------------------------------- LayerNorm and lookups


@pytest.mark.parametrize("width", WIDTHS)
def test_layer_norm(width: int) -> None:
    g = rng(width)
    weight, bias = normal(g, width), normal(g, width)
    for rows in (0, 1, 37):
        x, residual = normal(g, rows, width), normal(g, rows, width)
        close(cpu.layer_norm(x, weight, bias, 1e-5), norm64(x, weight, bias, 1e-5), 1e-5)
        close(cpu.layer_norm(x, weight, None, 1e-5, residual), norm64(x, weight, None, 1e-5, residual), 1e-5)


def test_layer_norm_of_rows_far_from_zero() -> None:
    x = normal(rng(2), 5, 384) + np.float32(1000)
    ones = np.ones(384, np.float32)
    close(cpu.layer_norm(x, ones, None, 1e-12), norm64(x, ones, None, 1e-12), 1e-3)


@pytest.mark.parametrize("width", WIDTHS)
def test_embedding_norm(width: int) -> None:
    g = rng(width, 3)
    tables = [normal(g, rows, width) for rows in (50, 20, 2)]
    ids = [g.integers(0, len(table), 61).astype(np.int32) for table in tables]
    weight, bias = normal(g, width), normal(g, width)
    for count in (1, 2, 3):
        lookups = list(zip(tables, ids, strict=True))[:count]
        summed = sum(table[i].astype(np.float64) for table, i in lookups)
        close(cpu.embedding_norm(lookups, weight, bias, 1e-5), norm64(summed, weight, bias, 1e-5), 1e-5)
        close(cpu.embedding_norm(lookups, None, None, 0.0), summed)


# ---------------------------------------------------------------- attention


@pytest.mark.parametrize("head_dim", [1, 8, 24, 32, 33, 64, 80, 128])
@pytest.mark.parametrize("lengths", [[0, 1, 31, 0, 32, 33, 127, 128], [511, 512, 513, 3]], ids=["short", "long"])
def test_attention(head_dim: int, lengths: list[int]) -> None:
    g = rng(head_dim, len(lengths))
    cu, heads = starts(lengths), 2
    qkv = normal(g, cu[-1], 3 * heads * head_dim)
    scale = head_dim**-0.5
    close(cpu.attention(qkv, cu, heads, scale), attention64(qkv, cu, heads, scale))
    longest = max(lengths) + 3
    relative = normal(g, heads, 2 * longest - 1)
    i = np.arange(longest)
    full = np.ascontiguousarray(relative[:, i - i[:, None] + longest - 1])
    wanted = attention64(qkv, cu, heads, scale, full)
    close(cpu.attention(qkv, cu, heads, scale, full), wanted)
    close(cpu.attention(qkv, cu, heads, scale, relative), wanted)


def test_softmax_is_exact_to_rounding() -> None:
    scores = np.linspace(-30, 30, 4001)
    qkv = np.zeros((2 * 4001, 3), np.float32)
    qkv[:, 0] = 1
    qkv[::2, 1] = scores
    qkv[::2, 2] = 1
    cu = np.arange(0, 2 * 4001 + 1, 2, dtype=np.int32)
    wanted = 1 / (1 + np.exp(-qkv[::2, 1].astype(np.float64)))
    # A score of 30 is itself rounded to 1e-6 of e^30.
    tolerance = 4e-7 + 1e-7 * abs(scores)
    assert (abs(cpu.attention(qkv, cu, 1, 1.0)[::2, 0] / wanted - 1) <= tolerance).all()


@pytest.mark.parametrize("window", [0, 1, 5, 64, 600])
def test_attention_in_a_window(window: int, threads: int) -> None:
    g = rng(window, 7)
    cu = starts([1, 33, 700, 1300])
    qkv = normal(g, cu[-1], 3 * 2 * 24)
    bias = normal(g, 2, 2 * 1300 - 1)
    close(cpu.attention(qkv, cu, 2, 0.2, window=window), attention64(qkv, cu, 2, 0.2, window=window))
    i = np.arange(1300)
    full = bias[:, i - i[:, None] + 1299]
    close(cpu.attention(qkv, cu, 2, 0.2, bias, window=window), attention64(qkv, cu, 2, 0.2, full, window=window))


def test_attention_of_a_long_sequence_with_large_scores(threads: int) -> None:
    g = rng(8)
    cu = starts([2000, 17])
    qkv = normal(g, cu[-1], 3 * 3 * 32)
    qkv[:, :192] *= 3
    # Scores reach 200, where float32 is exact to 1.5e-5 at best.
    close(cpu.attention(qkv, cu, 3, 1.0), attention64(qkv, cu, 3, 1.0), 2e-4)


def test_attention_with_keys_that_the_bias_rules_out() -> None:
    g = rng(9)
    cu = starts([900, 40])
    qkv = normal(g, 940, 3 * 2 * 32)
    bias = np.zeros((2, 900, 900), np.float32)
    bias[:, :, :600] = -np.inf
    bias[:, :30, :40] = 0
    bias[:, 30:40, 5] = 0
    close(cpu.attention(qkv, cu, 2, 0.2, bias), attention64(qkv, cu, 2, 0.2, bias))


# ---------------------------------------------------------------- fused blocks


@pytest.mark.parametrize("width", [1, 30, 33, 384])
@pytest.mark.parametrize("normed", [True, False])
def test_output_norm(width: int, normed: bool, threads: int) -> None:
    g = rng(width, 11)
    weight, bias = normal(g, width, width, scale=width**-0.5), normal(g, width)
    gamma, beta = (normal(g, width), normal(g, width)) if normed else (None, None)
    packed = cpu.Linear(weight, bias)
    for rows in (0, 3, 400):
        x, residual = normal(g, rows, width), normal(g, rows, width)
        wanted = norm64(linear64(x, weight, bias, residual=residual), gamma, beta, 1e-5)
        close(cpu.output_norm(x, packed, residual, gamma, beta, 1e-5), wanted, 2e-5)
        wanted = norm64(linear64(x, weight, bias), gamma, beta, 1e-5)
        close(cpu.output_norm(x, packed, None, gamma, beta, 1e-5), wanted, 2e-5)


@pytest.mark.parametrize("gated", [False, "first", "second"])
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize(("width", "inner"), [(1, 3), (33, 70), (96, 1000)])
def test_feed_forward(width: int, inner: int, normed: bool, gated: bool | str, threads: int) -> None:
    g = rng(width, 12)
    up_weight, up_bias = normal(g, inner * (2 if gated else 1), width, scale=width**-0.5), normal(g, 2 * inner)
    down_weight, down_bias = normal(g, width, inner, scale=inner**-0.5), normal(g, width)
    up_bias = up_bias[: len(up_weight)].copy()
    gamma, beta = (normal(g, width), normal(g, width)) if normed else (None, None)
    up, down = cpu.Linear(up_weight, up_bias), cpu.Linear(down_weight, down_bias)
    for rows in (0, 3, 90, 400):
        x, other = normal(g, rows, width), normal(g, rows, width)
        h = linear64(x, up_weight, up_bias)
        if not gated:
            h = activate64(h, "gelu")
        elif gated == "first":
            h = activate64(h[:, :inner], "gelu") * h[:, inner:]
        else:
            h = activate64(h[:, inner:], "gelu") * h[:, :inner]
        plain = h @ down_weight.astype(np.float64).T + down_bias
        for residual, added in ((True, x), (False, 0.0), (other, other)):
            found = cpu.feed_forward(x, up, down, "gelu", gamma, beta, 1e-3, gated=gated, residual=residual)
            close(found, norm64(plain + added, gamma, beta, 1e-3), 3e-5)


# ---------------------------------------------------------------- rope and pooling


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


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("normalize", [False, True])
def test_mean_pool(width: int, normalize: bool) -> None:
    g = rng(width, 14)
    lengths = [3, 0, 1, 7, 200]
    cu = starts(lengths)
    hidden = normal(g, cu[-1], width)
    for skip in (0, 3, 6):
        wanted = np.zeros((len(lengths), width))
        for row, (start, n) in enumerate(zip(cu, lengths, strict=False)):
            if n:
                wanted[row] = hidden[start + (skip if n > skip else 0) : start + n].astype(np.float64).mean(0)
        if normalize:
            wanted /= np.maximum(np.linalg.norm(wanted, axis=1, keepdims=True), 1e-12)
        close(cpu.mean_pool(hidden, cu, skip, normalize), wanted)


# ---------------------------------------------------------------- what a result may depend on


def layer(qkv_x: np.ndarray, cu: np.ndarray, weights: dict[str, cpu.Linear]) -> np.ndarray:
    ones = np.ones(96, np.float32)
    qkv = cpu.linear(qkv_x, weights["qkv"])
    context = cpu.attention(qkv, cu, 3, 0.2)
    h = cpu.output_norm(context, weights["out"], qkv_x, ones, None, 1e-5)
    return cpu.feed_forward(h, weights["up"], weights["down"], "gelu", ones, None, 1e-5)


def some_weights() -> dict[str, cpu.Linear]:
    g = rng(15)
    shapes = {"qkv": (288, 96), "out": (96, 96), "up": (500, 96), "down": (96, 500)}
    return {name: cpu.Linear(normal(g, *shape, scale=0.1)) for name, shape in shapes.items()}


def encoder_layer(g: np.random.Generator, width: int, inner: int, with_bias: bool) -> cpu.EncoderLayer:
    def packed(outputs: int, inputs: int) -> cpu.Linear:
        return cpu.Linear(normal(g, outputs, inputs, scale=0.2), normal(g, outputs) if with_bias else None)

    def norm() -> cpu.Norm:
        return cpu.Norm(normal(g, width), normal(g, width) if with_bias else None, float(g.uniform(1e-6, 1e-2)))

    return cpu.EncoderLayer(
        packed(3 * width, width), packed(width, width), norm(), packed(inner, width), packed(width, inner), norm()
    )


@pytest.mark.parametrize("bias", [None, "full", "by distance"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("lengths", [[16], [1, 0, 33, 2, 200], [0]])
def test_an_encoder_is_its_layers_ops(lengths: list[int], depth: int, bias: str | None, threads: int) -> None:
    g, heads, width, act = rng(21), 3, 96, ("gelu", "silu", None)[depth - 1]
    layers = [encoder_layer(g, width, 130 + 7 * i, with_bias=i != 1) for i in range(depth)]
    cu = starts(lengths)
    x = normal(g, sum(lengths), width)
    before = x.copy()
    longest = max(lengths) + 2
    shapes = {"full": (heads, longest, longest), "by distance": (heads, 2 * longest - 1)}
    table = None if bias is None else normal(g, *shapes[bias])
    found = cpu.Encoder(layers, heads, 0.2, act)(x, cu, table)
    expected = x
    for w in layers:
        attended = cpu.attention(cpu.linear(expected, w.qkv), cu, heads, 0.2, table)
        between = cpu.output_norm(attended, w.out, expected, *w.attention_norm)
        expected = cpu.feed_forward(between, w.up, w.down, act, *w.output_norm)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(x, before)


def test_bad_encoder_input() -> None:
    g = rng(22)
    good, other = encoder_layer(g, 96, 130, True), encoder_layer(g, 48, 130, True)
    for layers, heads, act, message in (
        ([good, other], 3, "gelu", "do not fit"),
        ([good._replace(up=other.up)], 3, "gelu", "do not fit"),
        ([good._replace(output_norm=other.output_norm)], 3, "gelu", "of shape"),
        ([good], 5, "gelu", "heads"),
        ([good], 3, "mish", "no activation"),
    ):
        with pytest.raises(ValueError, match=message):
            cpu.Encoder(layers, heads, 0.2, act)
    encoder, x = cpu.Encoder([good], 3, 0.2, "gelu"), normal(g, 5, 96)
    for arguments, message in (
        ((x[:, :48].copy(), starts([5])), "of shape"),
        ((x, starts([4])), "rise from 0 to 5"),
        ((x, np.array([0, 6, 5], np.int32)), "rise from 0 to 5"),
        ((x, starts([5]), normal(g, 3, 7)), "none longer than the bias's 4"),
        ((x, starts([5]), normal(g, 2, 9, 9)), "of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder(*arguments)
    with pytest.raises(TypeError, match="float32"):
        encoder(x.astype(np.float64), starts([5]))


def test_results_do_not_depend_on_threads_or_batch(threads: int) -> None:
    weights, lengths = some_weights(), [40, 1, 700, 13, 0, 129, 64, 2]
    cu = starts(lengths)
    x = normal(rng(16), cu[-1], 96)
    together = layer(x, cu, weights)
    cpu.set_num_threads(1)
    np.testing.assert_allclose(together, layer(x, cu, weights), rtol=0, atol=1e-6)
    for start, n in zip(cu, lengths, strict=False):
        alone = layer(x[start : start + n].copy(), starts([n]), weights)
        np.testing.assert_allclose(together[start : start + n], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [20, 300])
def test_nan_stays_in_its_row(rows: int, threads: int) -> None:
    weights, ones = some_weights(), np.ones(96, np.float32)
    x = normal(rng(17), rows, 96)
    x[rows // 2, 5] = np.nan
    for found in (
        cpu.linear(x, weights["up"], "gelu"),
        cpu.linear(x, weights["up"], "silu"),
        cpu.linear(x, weights["up"], "relu"),
        cpu.layer_norm(x, ones, None, 1e-5),
        cpu.output_norm(x, weights["out"], x, ones, None, 1e-5),
        cpu.feed_forward(x, weights["up"], weights["down"], "gelu", ones, None, 1e-5),
    ):
        assert np.isnan(found).any(axis=1).nonzero()[0].tolist() == [rows // 2]


def test_nan_stays_in_its_sequence() -> None:
    cu = starts([10, 40, 3])
    qkv = normal(rng(18), 53, 3 * 64)
    qkv[30] = np.nan
    rows = np.isnan(cpu.attention(qkv, cu, 2, 0.2)).all(axis=1).nonzero()[0]
    assert rows.tolist() == list(range(10, 50))


# ---------------------------------------------------------------- processes, threads, memory


def _forward_in_child(queue: "multiprocessing.Queue[bytes]", x: np.ndarray, cu: np.ndarray) -> None:
    result = layer(x, cu, some_weights())
    tasks = Path("/proc/self/task")
    started = sum(1 for _ in tasks.iterdir()) > 2 if tasks.exists() else True  # more than this and the queue's
    queue.put(result.tobytes() if started else b"")


def test_a_forked_child_works(isa: str) -> None:
    cpu.set_num_threads(3)
    x, cu = normal(rng(19), 500, 96), starts([500])
    wanted = layer(x, cu, some_weights())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_forward_in_child, args=(queue, x, cu))
    child.start()
    found = np.frombuffer(queue.get(timeout=60), np.float32).reshape(wanted.shape)
    child.join(timeout=60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(layer(x, cu, some_weights()), wanted)
    cpu.set_num_threads(cpu.usable_cores())


def test_several_python_threads_at_once(threads: int) -> None:
    weights, cu = some_weights(), starts([100, 200])
    inputs = [normal(rng(20, i), 300, 96) for i in range(4)]
    wanted = [layer(x, cu, weights) for x in inputs]
    wrong = []

    def work(i: int) -> None:
        for _ in range(10):
            if not np.array_equal(layer(inputs[i], cu, weights), wanted[i]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_large_outputs_reuse_memory_only_when_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    first = cpu.empty((512, 300))
    address = first.ctypes.data
    assert first.shape == (512, 300)
    assert first.dtype == np.float32
    view = first[3:]
    del first
    second = cpu.empty((512, 300))
    assert second.ctypes.data != address  # the view still holds the first
    del view
    assert cpu.empty((512, 300)).ctypes.data == address


# ---------------------------------------------------------------- bad input


def test_bad_input_is_refused() -> None:
    x, packed, ones = np.ones((4, 8), np.float32), cpu.Linear(np.ones((6, 8), np.float32)), np.ones(8, np.float32)
    cu = starts([4])
    with pytest.raises(TypeError, match="float32"):
        cpu.linear(x.astype(np.float64), packed)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="list"):
        cpu.layer_norm(x, [1.0] * 8, None, 1e-5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        cpu.linear(x[:, :7].copy(), packed)
    with pytest.raises(ValueError, match="C-contiguous"):
        cpu.linear(np.ones((8, 4), np.float32).T, packed)
    with pytest.raises(ValueError, match="no activation 'swish'"):
        cpu.linear(x, packed, "swish")
    with pytest.raises(ValueError, match="residual"):
        cpu.linear(x, packed, residual=x)
    with pytest.raises(ValueError, match="with elements"):
        cpu.Linear(np.ones((0, 8), np.float32))
    with pytest.raises(ValueError, match="bias"):
        cpu.Linear(np.ones((6, 8), np.float32), ones)
    with pytest.raises(ValueError, match="no weight"):
        cpu.output_norm(x, packed, None, None, np.ones(6, np.float32), 1e-5)
    with pytest.raises(ValueError, match="down"):
        cpu.feed_forward(x, packed, packed, "gelu", None, None, 1e-5)
    with pytest.raises(ValueError, match="gated"):
        cpu.feed_forward(x, packed, packed, "gelu", None, None, 1e-5, gated="both")
    for ids in ([0, 8], [-1, 0]):
        with pytest.raises(ValueError, match="not a row"):
            cpu.embedding_norm([(np.ones((8, 3), np.float32), np.array(ids, np.int32))], None, None, 0.0)
    with pytest.raises(ValueError, match="1 to 8"):
        cpu.embedding_norm([], None, None, 0.0)
    qkv = np.ones((4, 24), np.float32)
    for bad in ([0, 5], [1, 4], [0, 3, 2, 4], [0, -1, 4]):
        with pytest.raises(ValueError, match="rise from 0 to 4"):
            cpu.attention(qkv, np.array(bad, np.int32), 2, 1.0)
        with pytest.raises(ValueError, match="rise from 0 to 4"):
            cpu.mean_pool(x, np.array(bad, np.int32))
    with pytest.raises(TypeError, match="int32"):
        cpu.attention(qkv, np.array([0, 4], np.int64), 2, 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="heads"):
        cpu.attention(qkv, cu, 3, 1.0)
    with pytest.raises(ValueError, match="longer than the bias"):
        cpu.attention(qkv, cu, 2, 1.0, np.ones((2, 3, 3), np.float32))
    with pytest.raises(ValueError, match="window"):
        cpu.attention(qkv, cu, 2, 1.0, window=-1)
    table = np.ones((3, 2), np.float32)
    with pytest.raises(ValueError, match="position"):
        cpu.rope(qkv, np.array([0, 1, 2, 3], np.int32), table, table, 2)
    with pytest.raises(ValueError, match="even"):
        cpu.rope(np.ones((4, 27), np.float32), np.zeros(4, np.int32), table, table, 3)
    with pytest.raises(ValueError, match="at least 1"):
        cpu.set_num_threads(0)
