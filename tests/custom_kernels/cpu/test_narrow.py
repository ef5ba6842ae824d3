"""Products in bfloat16 and int8 against float64 on the same rounded numbers."""

from collections.abc import Iterator

import numpy as np
import pytest

from custom_kernels import cpu
from custom_kernels.cpu import library
from tests.custom_kernels.cpu.conftest import activate64, attention64, normal, rng, starts

# What MLX_EMBED_CPU_ISA may ask for, and a dtype that is multiplied there; a machine has some of these.
SETS = [("", "bfloat16"), ("", "int8"), ("avx512_bf16", "bfloat16"), ("avx512_vnni", "int8"), ("avx2_vnni", "int8")]
HAS = cpu.available() and any(cpu.product(dtype) for _, dtype in SETS)

pytestmark = [
    pytest.mark.skipif(not HAS, reason="this machine has no narrow products"),
    pytest.mark.usefixtures("poison"),
]


@pytest.fixture(params=SETS, ids=lambda chosen: " ".join(filter(None, chosen)))
def dtype(request: pytest.FixtureRequest) -> Iterator[str]:
    most, dtype = request.param
    choose, best = library.library().mlx_embed_choose, (cpu.product(dtype), cpu.product("bfloat16"))
    choose(most.encode())
    other = cpu.product(dtype) and (not most or (cpu.product(dtype), cpu.product("bfloat16")) != best)
    if other:
        yield dtype
    choose(b"")
    if not other:
        pytest.skip(f"no products in {dtype} with {most or 'the best'}, or the same")


def bfloat16(x: np.ndarray) -> np.ndarray:
    """Rounded to 8 significant bits, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


def rounded(x: np.ndarray, dtype: str, *, weight: bool) -> np.ndarray:
    """The numbers that a product multiplies instead of those in rows of x."""
    if dtype == "bfloat16":
        return bfloat16(x)
    low, high = np.minimum(x.min(axis=1), 0), np.maximum(x.max(axis=1), 0)
    step = (np.maximum(-low, high) / 127 if weight else (high - low) / 254).astype(np.float32)[:, None]
    return np.where(step > 0, np.rint(x / np.where(step > 0, step, 1)) * step, 0)


def product64(x: np.ndarray, weight: np.ndarray, dtype: str) -> np.ndarray:
    seen = rounded(x, dtype, weight=False).astype(np.float64)
    return seen @ rounded(weight, dtype, weight=True).astype(np.float64).T


def near(found: np.ndarray, wanted: np.ndarray, dtype: str, depth: int) -> None:
    """Within float32's rounding; a number between two steps of int8 may go either way, a few times in a row."""
    error = abs(found - wanted)
    assert error.max() <= (2e-5 if dtype == "bfloat16" else 0.03)
    assert np.median(error, axis=1).max() <= (5e-6 if dtype == "bfloat16" or depth < 64 else 1e-3)


@pytest.mark.parametrize("width", [1, 2, 3, 31, 64, 385, 768, 1536, 1539])
@pytest.mark.parametrize("out_features", [1, 32, 33, 100])
def test_products_of_any_shape(width: int, out_features: int, dtype: str) -> None:
    g = rng(width, out_features)
    weight, bias = normal(g, out_features, width, scale=width**-0.5), normal(g, out_features)
    layer = cpu.Linear(weight, bias, dtype)
    for rows in (0, 1, 5, 14, 29, 131):
        x, residual = normal(g, rows, width), normal(g, rows, out_features)
        found = cpu.linear(x, layer, residual=residual)
        if rows:
            near(found, product64(x, weight, dtype) + bias + residual, dtype, width)


@pytest.mark.parametrize("act", ["gelu", "gelu_tanh", "relu", "silu"])
def test_activations(act: str, dtype: str) -> None:
    """Of each product, near what rounding to 8 bits would leave of the formula; and far out exactly it."""
    x = np.linspace(-14, 14, 2801, dtype=np.float32)
    identity = cpu.Linear(np.zeros((len(x), 1), np.float32), x, dtype)
    found = cpu.linear(np.ones((1, 1), np.float32), identity, act)[0]
    wanted = activate64(x.astype(np.float64), act)
    assert abs(found - wanted).max() <= 1.4e-4
    assert abs(found - wanted)[abs(x) > 6].max() <= 4e-6


def test_the_greatest_products_are_those_of_linear(dtype: str) -> None:
    g, cu = rng(8), starts([3, 0, 130, 40])
    x, layer = normal(g, cu[-1], 70), cpu.Linear(normal(g, 500, 70), normal(g, 500), dtype)
    products = np.split(cpu.linear(x, layer), cu[1:-1])
    wanted = np.stack([rows.max(0, initial=-np.inf) for rows in products])
    np.testing.assert_allclose(cpu.linear_max(x, layer, cu), wanted, rtol=1e-6, atol=1e-6)


def test_a_row_does_not_depend_on_its_batch(dtype: str, threads: int) -> None:
    """Bit for bit, whatever is beside it: rows of another range, other numbers of them, other threads."""
    g = rng(3)
    up, down = (
        cpu.Linear(normal(g, 300, 96, scale=0.1), normal(g, 300), dtype),
        cpu.Linear(normal(g, 96, 300), None, dtype),
    )
    x = normal(g, 260, 96) * np.exp2(g.integers(-12, 12, (260, 1))).astype(np.float32)
    ones = np.ones(96, np.float32)

    def run(rows: np.ndarray) -> np.ndarray:
        return cpu.feed_forward(rows, up, down, "gelu", ones, None, 1e-5)

    whole, order = run(x), g.permutation(len(x))
    assert np.array_equal(run(x[order]), whole[order])
    for place in (0, 17, 259):
        assert np.array_equal(run(x[place : place + 1])[0], whole[place])
        assert np.array_equal(cpu.linear(x[place : place + 1], up)[0], cpu.linear(x, up)[place])


def test_rows_and_columns_of_nothing(dtype: str) -> None:
    g = rng(4)
    weight, bias, x = normal(g, 40, 70), normal(g, 40), normal(g, 20, 70)
    weight[3] = 0
    x[5], x[6], x[7] = 0, 2.5, -2.5
    found = cpu.linear(x, cpu.Linear(weight, bias, dtype))
    assert np.array_equal(found[:, 3], np.full(20, bias[3]))
    assert np.array_equal(found[5], bias)
    near(found[6:8], product64(x[6:8], weight, dtype) + bias, dtype, 70)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_shows_in_its_row_alone(bad: float, dtype: str) -> None:
    g = rng(5)
    layer, x = cpu.Linear(normal(g, 40, 770), None, dtype), normal(g, 20, 770)
    for place in (0, 15, 700, 769):
        broken = x.copy()
        broken[7, place] = bad
        found = cpu.linear(broken, layer)
        assert not np.isfinite(found[7]).any()
        others = np.arange(20) != 7
        assert np.array_equal(found[others], cpu.linear(x, layer)[others])


@pytest.mark.parametrize("lengths", [[1], [5, 128, 1, 0, 17], [600, 3], [1030]])
@pytest.mark.parametrize("head_dim", [2, 32, 64, 100])
def test_attention_on_bfloat16(lengths: list[int], head_dim: int) -> None:
    if not cpu.attends("bfloat16"):
        pytest.skip("this machine has no attention in bfloat16")
    g = rng(head_dim, *lengths)
    cu, heads = starts(lengths), 2
    qkv = normal(g, cu[-1], 3 * heads * head_dim)
    bias = normal(g, heads, 2 * max(lengths) - 1)
    for options in ({}, {"bias": bias}, {"window": 9}, {"bias": bias, "window": 300}):
        found = cpu.attention(qkv, cu, heads, head_dim**-0.5, dtype="bfloat16", **options)
        wanted = attention64(bfloat16(qkv), cu, heads, head_dim**-0.5, **options)
        error = abs(found - wanted)
        # What is left is the rounding of the weights: half of 2^-8 of each, with signs that differ.
        assert error.max() <= 0.012
        assert error.mean() <= 0.0015


def test_attention_on_bfloat16_does_not_depend_on_the_batch() -> None:
    if not cpu.attends("bfloat16"):
        pytest.skip("this machine has no attention in bfloat16")
    lengths = [40, 7, 130, 1]
    cu = starts(lengths)
    qkv = normal(rng(6), cu[-1], 3 * 64)
    whole = cpu.attention(qkv, cu, 2, 0.2, dtype="bfloat16")
    for i, length in enumerate(lengths):
        part = qkv[cu[i] : cu[i + 1]].copy()
        alone = cpu.attention(part, starts([length]), 2, 0.2, dtype="bfloat16")
        assert np.array_equal(alone, whole[cu[i] : cu[i + 1]])


def test_layers_in_one_call_are_op_by_op(dtype: str) -> None:
    g, lengths = rng(7), [30, 1, 90]
    cu = starts(lengths)
    ones, bias = np.ones(64, np.float32), normal(g, 64)
    shapes = {"qkv": (192, 64), "out": (64, 64), "up": (200, 64), "down": (64, 200)}
    w = {name: cpu.Linear(normal(g, *shape, scale=0.1), None, dtype) for name, shape in shapes.items()}
    norm = cpu.Norm(ones, bias, 1e-5)
    layer = cpu.EncoderLayer(w["qkv"], w["out"], norm, w["up"], w["down"], norm)
    attends = "bfloat16" if cpu.attends("bfloat16") else "float32"
    x = normal(g, cu[-1], 64)
    h = cpu.attention(cpu.linear(x, w["qkv"]), cu, 2, 0.2, dtype=attends)
    h = cpu.output_norm(h, w["out"], x, *norm)
    h = cpu.feed_forward(h, w["up"], w["down"], "gelu", *norm)
    found = cpu.Encoder([layer], 2, 0.2, "gelu", attends)(x, cu)
    assert np.array_equal(found, h)
    overwritten = x.copy()
    assert cpu.Encoder([layer, layer], 2, 0.2, "gelu", attends)(overwritten, cu, in_place=True) is overwritten
    assert np.array_equal(overwritten, cpu.Encoder([layer, layer], 2, 0.2, "gelu", attends)(x, cu))


def test_layers_exchange_their_weights(dtype: str) -> None:
    """In the encoder that they are a part of too."""
    g, cu = rng(8), starts([30, 4])
    norm = cpu.Norm(np.ones(64, np.float32), None, 1e-5)
    shapes, x = ((192, 64), (64, 64), (200, 64), (64, 200)), normal(g, 34, 64)
    weights = [normal(g, *shape, scale=0.1) for shape in shapes]
    narrow, exact = ([cpu.Linear(weight, None, name) for weight in weights] for name in (dtype, "float32"))

    def run(qkv: cpu.Linear, out: cpu.Linear, up: cpu.Linear, down: cpu.Linear) -> cpu.Encoder:
        return cpu.Encoder([cpu.EncoderLayer(qkv, out, norm, up, down, norm)], 2, 0.2, "gelu")

    encoder, before = run(*narrow), run(*narrow)(x, cu)
    mixed = run(narrow[0], narrow[1], exact[2], narrow[3])(x, cu)
    narrow[2].exchange(exact[2])
    assert (narrow[2].dtype, exact[2].dtype) == ("float32", dtype)
    assert np.array_equal(encoder(x, cu), mixed)
    assert not np.array_equal(mixed, before)
    narrow[2].exchange(exact[2])
    assert np.array_equal(encoder(x, cu), before)
    with pytest.raises(ValueError, match=r"one shape, got \(192, 64\) and \(64, 64\)"):
        narrow[0].exchange(narrow[1])


@pytest.mark.parametrize("width", [1, 15, 64, 385, 1540])
def test_scaled_columns(width: int, dtype: str) -> None:
    """To the bit what numpy's product of each column makes of it, in every op; and nearer where one is large."""
    if dtype != "int8":
        with pytest.raises(ValueError, match="columns in int8 alone, got dtype 'bfloat16'"):
            cpu.Linear(np.ones((4, width), np.float32), None, dtype, np.ones(width, np.float32))
        return
    g = rng(width, 9)
    columns = np.exp2(normal(g, width, scale=2))
    weight, bias, down = normal(g, 70, width) / columns, normal(g, 70), cpu.Linear(normal(g, width, 70), None, dtype)
    scaled, alike = cpu.Linear(weight, bias, dtype, columns), cpu.Linear(weight * columns, bias, dtype)
    for rows in (1, 29, 131):
        x = normal(g, rows, width) * columns
        found, other = cpu.linear(x, scaled), x * (1 / columns)
        assert np.array_equal(found, cpu.linear(other, alike))
        assert np.array_equal(cpu.linear_max(x, scaled, starts([rows])), cpu.linear_max(other, alike, starts([rows])))
        up = cpu.feed_forward(x, scaled, down, "gelu", None, None, 0.0, residual=False)
        assert np.array_equal(up, cpu.feed_forward(other, alike, down, "gelu", None, None, 0.0, residual=False))
        if width >= 64:
            wanted = x.astype(np.float64) @ weight.T + bias
            assert abs(found - wanted).mean() < abs(cpu.linear(x, cpu.Linear(weight, bias, dtype)) - wanted).mean() / 2
    for bad in (columns[:-1], columns.astype(np.float64)):
        with pytest.raises((TypeError, ValueError), match="columns"):
            cpu.Linear(weight, bias, dtype, bad)


def test_what_layers_multiply_is_watched(dtype: str, threads: int) -> None:
    g = rng(9)
    up, down = cpu.Linear(normal(g, 300, 96), None, dtype), cpu.Linear(normal(g, 96, 300), None, dtype)
    greatest, inner, table = np.full(96, 0.5, np.float32), np.zeros(300, np.float32), np.zeros(96, np.float32)
    x = normal(g, 260, 96, scale=0.3)
    x[3, 5] = np.nan
    plain = cpu.feed_forward(x, up, down, "gelu", None, None, 0.0, residual=False)
    up.watch(greatest)
    down.watch(inner)
    for rows in (x[:1], x):
        cpu.feed_forward(rows, up, down, "gelu", None, None, 0.0, residual=False)
    assert np.array_equal(greatest, np.maximum(0.5, np.nanmax(abs(x), axis=0)))
    x[3] = 0
    assert np.array_equal(inner, abs(cpu.linear(x, up, "gelu")).max(axis=0))
    up.watch(table)
    cpu.linear_max(x, up, starts([200, 60]))
    assert np.array_equal(table, abs(x).max(axis=0))
    up.watch(None)
    cpu.linear(2 * x, up)
    assert np.array_equal(table, abs(x).max(axis=0))
    x[3, 5] = np.nan
    down.watch(None)
    found = cpu.feed_forward(x, up, down, "gelu", None, None, 0.0, residual=False)
    np.testing.assert_array_equal(found, plain)
    with pytest.raises(ValueError, match="watch needs greatest"):
        up.watch(inner)


def test_attention_is_where_its_products_are_fast() -> None:
    assert cpu.attends("float32")
    choose = library.library().mlx_embed_choose
    try:
        for most in ("avx512_bf16", "avx512_vnni", "baseline"):
            choose(most.encode())
            assert cpu.attends("bfloat16") == (cpu.product("bfloat16") == "AVX512_BF16")
    finally:
        choose(b"")


def test_bad_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.ones((6, 8), np.float32)
    with pytest.raises(ValueError, match="no products in 'float16' on this processor; it has 'float32'"):
        cpu.Linear(weight, None, "float16")
    qkv, cu = np.ones((4, 9), np.float32), starts([4])
    with pytest.raises(ValueError, match="no attention in 'int8' on this processor"):
        cpu.attention(qkv, cu, 1, 1.0, dtype="int8")
    if cpu.attends("bfloat16"):
        with pytest.raises(ValueError, match="heads of an even size, got 3"):
            cpu.attention(qkv, cu, 1, 1.0, dtype="bfloat16")
        exact = cpu.Linear(np.ones((24, 8), np.float32))
        out, up = cpu.Linear(np.ones((8, 8), np.float32)), cpu.Linear(np.ones((8, 8), np.float32))
        norm = cpu.Norm(np.ones(8, np.float32), None, 1e-5)
        with pytest.raises(ValueError, match="no layer's qkv is kept in float32"):
            cpu.Encoder([cpu.EncoderLayer(exact, out, norm, up, out, norm)], 2, 1.0, None, "bfloat16")
    choose = library.library().mlx_embed_choose
    choose(b"baseline")
    try:
        for dtype in ("bfloat16", "int8"):
            assert cpu.product(dtype) == ""
            with pytest.raises(ValueError, match=f"no products in '{dtype}' on this processor; it has 'float32'"):
                cpu.Linear(weight, None, dtype)
    finally:
        choose(b"")
