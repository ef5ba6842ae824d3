"""The CUDA kernels, emulated, against the references of their ops, on samples that have the edge cases."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from custom_kernels import cuda
from custom_kernels.arrays import as_float32, is_float
from custom_kernels.cuda.ahead import rehearsal
from custom_kernels.cuda.attention_hopper import attention_hopper
from custom_kernels.cuda.products import lay_out
from custom_kernels.ops import (
    activate,
    attention,
    embedding_norm,
    layer_norm,
    linear,
    linear_max,
    max_sim,
    mean_pool,
    output_norm,
    rms_norm,
    rope,
    short_encoder,
    top_k_scores,
)
from custom_kernels.ops.attention import Rotated
from custom_kernels.ops.rope import Normed
from custom_kernels.parameters import Linear
from tests.cuda.emulation import emulated_cuda, on_hopper, unavailable
from tests.custom_kernels.conftest import (
    EXACT,
    OP,
    exact,
    exact_attention,
    exact_linear,
    gated,
    random,
    rotation,
    shared,
    spoilt,
    starts,
)

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")

F32, F16, BF16 = mx.float32, mx.float16, mx.bfloat16
# Of values up to 1, and of larger ones relative to the largest: float32 arithmetic on the way, one rounding at the
# end, and in attention one of the weights.
BOUND = {F32: 1e-5, F16: 2e-3, BF16: 1.6e-2}
# Backward with arrays that begin anywhere, and in a random order with arrays that begin where MLX allocates them.
SEEDS = (1, 2)


# Of the longest text of a sample: longer than those that kernels have a size of their own for, and quickly computed.
LONG = 72


def attentions() -> list[Any]:
    of = attention.Variant
    turned, normed = Rotated(None), Rotated(Normed(F16, 1e-6, 1.0))
    return [
        of(F16, 32, 0.2, None, 16, None),
        of(BF16, 64, 0.2, F32, 32, None),
        of(F16, 64, 0.2, None, 64, 9, True),
        of(BF16, 64, 0.2, BF16, None, 40, False, 1, turned),
        of(F16, 64, 0.2, None, None, None, True, 2, normed),
        of(F16, 96, 0.2, None, 64, None, False, 1, turned),
        of(BF16, 128, 0.2, None, LONG, None, True, 2, normed),
        of(F16, 128, 0.2, F16, LONG, 33, False, 1, normed),
        of(F16, 80, 0.2, None, LONG, None, False, 1, turned),
        of(F16, 256, 0.2, None, 16, None, True, 3, normed),
        of(BF16, 160, 0.1, None, LONG, None),
        of(F32, 40, 0.2, F16, LONG, 20, True, 2, turned),
        of(BF16, 5, 0.2, None, 32, None),
    ]


CASES = {
    "activate": [
        activate.Variant(56, F16, "gelu", None),
        activate.Variant(42, F32, "gelu_tanh", "first"),
        activate.Variant(48, BF16, "silu", "second"),
        activate.Variant(7, F16, "relu", None),
    ],
    "attention": attentions(),
    "embedding_norm": [
        embedding_norm.Variant(384, 3, 1e-5, F16, F16, F16),
        embedding_norm.Variant(50, 1, 1e-5, F32, None, None),
    ],
    "layer_norm": [
        layer_norm.Variant(384, 1e-5, F16, F16, F16, F16),
        layer_norm.Variant(1034, 1e-5, F32, F16, None, None),
        layer_norm.Variant(2085, 1e-5, BF16, F32, BF16, BF16),
        layer_norm.Variant(5, 1e-5, F32, F32, F32, F32),
    ],
    "linear_max": [linear_max.Variant(F32, 300, 8, True), linear_max.Variant(F16, 9, 8, False)],
    "max_sim": [max_sim.Variant(F16, 128), max_sim.Variant(F32, 37)],
    "mean_pool": [
        mean_pool.Variant(384, F16, 0, False),
        mean_pool.Variant(1100, BF16, 2, True),
        mean_pool.Variant(37, F32, 1, True),
    ],
    "position_ids": ["int32"],
    "rms_norm": [
        rms_norm.Variant(384, 1e-6, F16, F16, F16, 1.0),
        rms_norm.Variant(1034, 1e-6, BF16, F32, None, 0.0),
        rms_norm.Variant(5, 1e-6, F32, F32, F32, 1.0),
    ],
    "rope": [
        rope.Variant(F16, 3, 16, 3),
        rope.Variant(BF16, 4, 48, 2, Normed(F32, 1e-6, 1.0)),
        rope.Variant(F32, 2, 5, 1, Normed(F32, 1e-6, 0.0)),
    ],
    "short_encoder": [
        short_encoder.Variant(F16, 96, 64, 2, 3, 1e-5, "gelu", None, 32),
        short_encoder.Variant(BF16, 32, 32, 1, 1, 1e-5, "silu", F32, 256),
    ],
    "top_k_scores": [
        top_k_scores.Variant(36, F16, 5, True, False),
        top_k_scores.Variant(36, mx.int8, 400, True, True),
        top_k_scores.Variant(5, F32, 1, False, True),
    ],
}


@pytest.mark.parametrize(
    ("name", "variant"),
    [pytest.param(name, variant, id=f"{name}-{i}") for name, found in CASES.items() for i, variant in enumerate(found)],
)
def test_a_kernel_equals_the_reference(name: str, variant: Any) -> None:
    arguments, options = OP[name].sample(variant, None)
    expected = exact(OP[name].reference(*tree_map(as_float32, arguments), **options))
    leaves: Any = tree_flatten(list(arguments))
    bound = max((BOUND[x.dtype] for _, x in leaves if is_float(x)), default=0.0) * max(1, np.abs(expected).max())
    for seed in SEEDS:
        with emulated_cuda(seed):
            found = OP[name].kernels["cuda"](*arguments, **options)
        assert found.shape == expected.shape
        assert np.abs(exact(found) - expected).max() <= bound, seed


@pytest.mark.parametrize("act", ["gelu", "gelu_tanh", "relu", "silu"])
@pytest.mark.parametrize("dtype", [F32, F16])
def test_what_is_no_number_stays_so(dtype: mx.Dtype, act: str) -> None:
    with emulated_cuda():
        found = cuda.activate(mx.array([[mx.nan, mx.inf] * 4], dtype=dtype), act)
    np.testing.assert_array_equal(exact(found), np.array([[np.nan, np.inf] * 4]))


@pytest.mark.parametrize("place", [0, 4, 39])
def test_the_greatest_beside_what_is_no_number_is_none(place: int) -> None:
    """Wherever it is: else a text of which a part is lost would look like any other."""
    texts, rows = starts([40, 40]), spoilt(place)
    identity = mx.array(np.eye(3, dtype=np.float32))
    for seed in SEEDS:
        with emulated_cuda(seed):
            products = Linear(mx.array(np.ones((300, 3), dtype=np.float32)))
            found = exact(cuda.linear_max(mx.array(rows), products, texts))
            scores = exact(cuda.max_sim(identity, starts([3]), mx.array(rows), texts))
        assert np.isnan(found[0]).all()
        assert (found[1] == 3).all()
        assert np.isnan(scores[0, 0])
        assert scores[0, 1] == 3


@pytest.mark.parametrize(("name", "blocks"), [("max_sim", 17), ("max_sim", 3), ("top_k_scores", 2)])
def test_more_blocks_than_a_launch_takes_are_several_launches(
    name: str, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some queries at a time, and where a query has too many documents, some documents."""
    monkeypatch.setattr("custom_kernels.cuda.launch.MAX_THREADS", blocks * 256)
    arguments, _ = OP[name].sample(CASES[name][1], None)
    expected = exact(OP[name].reference(*tree_map(as_float32, arguments)))
    for seed in SEEDS:
        with emulated_cuda(seed):
            found = OP[name].kernels["cuda"](*arguments)
        assert np.abs(exact(found) - expected).max() <= BOUND[F32] * np.abs(expected).max()


def test_there_is_a_case_of_every_kernel_but_those_of_hopper() -> None:
    hopper = {"gated_linear", "linear", "output_norm"}
    assert {name for name, op in OP.items() if "cuda" in op.kernels} - hopper == set(CASES)


@pytest.mark.parametrize(
    "lengths", [[128, 128], [0, 1, 0, 129, 127, 0], [150] * 3, [1] * 20 + [140], [0, 0, 31, 0], [65]], ids=str
)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dtype", "dim"), [("float16", 32), ("float32", 5), ("float32", 24)])
def test_attention_of_any_lengths(lengths: list[int], dtype: str, dim: int, causal: bool) -> None:
    """Every tile of queries belongs to one sequence, and every query to one tile."""
    qkv = random(sum(lengths), 3 * 2 * dim, dtype=dtype)
    with emulated_cuda(SEEDS[-1]):
        found = cuda.attention(qkv, starts(lengths), 2, 0.2, max_seqlen=max(lengths), causal=causal)
    expected = exact_attention(qkv, lengths, 2, 0.2, causal=causal)
    assert np.abs(exact(found) - expected).max() <= BOUND[qkv.dtype] * max(1, np.abs(expected).max())


@pytest.mark.parametrize("dim", [64, 256])
def test_attention_of_float32_is_as_precise_as_float32(dim: int) -> None:
    """Products of the tensor cores alone, in TF32, would be off by a thousandth; here sums are cut off as well."""
    lengths = [150, 9]
    qkv = random(sum(lengths), 4 * dim, dtype="float32")
    rows = shared(exact(qkv), 2, 1)
    for causal in (False, True):
        expected = exact_attention(rows, lengths, 2, dim**-0.5, causal=causal)
        for seed in SEEDS:
            with emulated_cuda(seed):
                found = cuda.attention(qkv, starts(lengths), 2, dim**-0.5, max_seqlen=150, kv_heads=1, causal=causal)
            assert np.abs(exact(found) - expected).max() <= 3e-6


def test_attention_of_float32_cuts_little_off_its_sums() -> None:
    """Sums of one sign come out too small by the tensor cores: twice so where small products are in the same sums."""
    lengths = [150, 9]
    qkv = random(sum(lengths), 3 * 64, dtype="float32")
    qkv[:, 128:] += 8
    with emulated_cuda(SEEDS[-1]):
        found = cuda.attention(qkv, starts(lengths), 1, 64**-0.5, max_seqlen=150)
    assert -1.5e-7 <= (exact(found) / exact_attention(qkv, lengths, 1, 64**-0.5) - 1).mean() <= 1e-8


@pytest.mark.parametrize(
    ("dtype", "heads", "dim", "lengths", "masks"),
    [
        ("float16", (2, 1), 64, [520, 65, 0, 3], {"causal": True}),
        ("bfloat16", (1, 1), 64, [193, 577], {}),
        ("float16", (1, 1), 64, [192], {}),
        ("bfloat16", (2, 2), 128, [450, 128, 1], {"causal": True, "window": 130}),
        ("float16", (1, 1), 128, [500], {}),
        ("float16", (2, 1), 256, [200, 65, 0], {"window": 50}),
        ("bfloat16", (2, 1), 256, [150, 3, 0, 65, 0, 0, 0], {"causal": True}),
    ],
)
def test_attention_of_long_texts_on_hopper(
    dtype: str, heads: tuple[int, int], dim: int, lengths: list[int], masks: dict[str, Any]
) -> None:
    """Rings that go round, tiles of few queries, blocks without any; and of three texts the second is NaN."""
    num_heads, kv_heads = heads
    qkv = random(sum(lengths), (num_heads + 2 * kv_heads) * dim, dtype=dtype)
    if len(lengths) > 2:
        qkv[lengths[0] : lengths[0] + lengths[1]] = mx.nan
    rows = shared(exact(qkv), num_heads, kv_heads)
    expected = exact_attention(rows, lengths, num_heads, 0.2, **masks)
    sizes = (num_heads, kv_heads, max(lengths) + 100)
    for seed in SEEDS:
        with emulated_cuda(seed):
            found = attention_hopper(
                qkv, starts(lengths), *sizes, 0.2, window=masks.get("window"), causal="causal" in masks
            )
        assert np.isnan(exact(found)).any(axis=1).tolist() == np.isnan(expected).any(axis=1).tolist()
        worst = np.nanmax(np.abs(exact(found) - expected) / max(1, np.nanmax(np.abs(expected))))
        assert worst <= BOUND[qkv.dtype], seed


@pytest.mark.parametrize(("dim", "hopper"), [(64, True), (128, True), (256, True), (32, False), (96, False)])
def test_long_texts_are_hoppers_where_it_has_their_heads(
    dim: int, hopper: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_hopper(monkeypatch)
    for length, options, name in (
        (64, {}, "attention"),
        (700, {}, "attention_hopper"),
        (700, {"window": 20}, "attention"),
        (700, {"bias": mx.zeros((1, 1399))}, "attention"),
    ):
        with rehearsal() as wanted:
            cuda.attention(mx.zeros((700, 3 * dim), dtype=F16), starts([700]), 1, 0.2, max_seqlen=length, **options)
        assert [key[0] for key in wanted] == [name if hopper else "attention"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_halves_turn_bfloat16_alone(dtype: str) -> None:
    """What is rounded to float16 is far finer than a bfloat16; beside a float16 it would show."""
    lengths = [40, 3]
    qkv, turn = random(43, 3 * 2 * 64, dtype=dtype), rotation(lengths, 64)
    halves = turn.cos.astype(mx.float16), turn.sin.astype(mx.float16)
    with emulated_cuda(SEEDS[-1]):
        plain, given, swapped = (
            exact(cuda.attention(qkv, starts(lengths), 2, 0.2, None, each, max_seqlen=40))
            for each in (turn, turn._replace(halves=halves), turn._replace(halves=halves[::-1]))
        )
    assert (given == plain).all()
    assert (swapped != plain).any() == (dtype == "bfloat16")


def laid_out(outputs: int, inputs: int, dtype: str) -> Linear:
    weight, bias = random(outputs, inputs, dtype=dtype, scale=inputs**-0.5), random(outputs, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mx, "device_info", lambda *_: {"architecture": "sm_90"})
        return Linear(weight, bias, lay_out(weight))


@pytest.mark.parametrize(
    ("total", "outputs", "inputs", "act", "dtype"),
    [(1200, 128, 192, "gelu", "float16"), (500, 96, 192, None, "bfloat16"), (1, 96, 64, "relu", "float16")],
)
def test_linear_by_hoppers_instructions(total: int, outputs: int, inputs: int, act: str | None, dtype: str) -> None:
    """Several tiles for a block, of which the last is partly empty, and a ring that goes round."""
    x, layer = random(total, inputs, dtype=dtype), laid_out(outputs, inputs, dtype)
    expected = exact(linear.reference_linear(as_float32(x), tree_map(as_float32, layer), act))
    for seed in SEEDS:
        with emulated_cuda(2 * seed):
            found = cuda.linear(x, layer, act)
        assert np.abs(exact(found) - expected).max() <= BOUND[x.dtype] * max(1, np.abs(expected).max())


@pytest.mark.parametrize(
    ("total", "outputs", "inputs", "act", "gate", "has_residual", "has_bias"),
    [
        (700, 256, 192, None, None, True, True),
        (129, 96, 256, "relu", None, False, False),
        (1, 64, 64, "gelu", None, False, True),
        (300, 128, 384, "silu", "second", False, False),
        (200, 192, 64, "gelu_tanh", "first", False, True),
    ],
)
def test_linear_of_float32_is_as_precise_as_float32(
    total: int, outputs: int, inputs: int, act: str | None, gate: Any, has_residual: bool, has_bias: bool
) -> None:
    """Sums of the tensor cores, whose factors have 11 bits, are cut off; those of float32 are rounded."""
    layer = laid_out(outputs, inputs, "float32")
    layer = layer if has_bias else layer._replace(bias=None)
    x = random(total, inputs, dtype="float32") * mx.exp(random(total, 1, dtype="float32"))
    residual = random(total, outputs, dtype="float32") if has_residual else None
    product = exact_linear(x, layer.weight, layer.bias)
    expected = gated(product, act, gate) if gate else EXACT[act](product)
    expected = expected if residual is None else expected + exact(residual)
    rows = np.sqrt((expected**2).mean(axis=1, keepdims=True))
    plain = exact(linear.reference_linear(x, layer, None)) - product
    for seed in SEEDS:
        with emulated_cuda(2 * seed):
            found = cuda.gated_linear(x, layer, act, gate) if gate else cuda.linear(x, layer, act, residual)
        assert np.abs(exact(found) - expected).max() <= 3e-6 * np.abs(expected).max()
        if act is None:
            assert np.square((exact(found) - expected) / rows).mean() <= np.square(plain / rows).mean()


def test_no_kernel_has_the_norm_behind_a_layer_in_float32() -> None:
    layer, x = laid_out(256, 128, "float32"), random(200, 128, dtype="float32")
    with emulated_cuda(), pytest.raises(NotImplementedError, match="output_norm is of 16 bits"):
        cuda.output_norm(x, layer, random(200, 256, dtype="float32"), layer.bias, layer.bias, 1e-5)


def test_columns_that_no_tile_has_are_not_multiplied_in_float32() -> None:
    layer, x = laid_out(96, 64, "float32"), random(3, 64, dtype="float32")
    with emulated_cuda():
        cuda.linear(x, layer, None)
        with pytest.raises(NotImplementedError, match="no 96 outputs"):
            cuda.gated_linear(x, layer, "gelu", "first")


def test_numbers_of_any_size_are_multiplied_in_float32() -> None:
    """Rows from 1e-30 to 1e30, one of zeros, and one that is no number, which is alone."""
    layer = laid_out(64, 128, "float32")
    sizes = np.array([1e-30, 1e-4, 1.0, 3e4, 7e4, 1e30, 0.0, np.nan])
    x = random(8, 128, dtype="float32") * mx.array(sizes[:, None].astype(np.float32))
    expected = exact(x) @ exact(layer.weight).T
    with emulated_cuda():
        found = exact(cuda.linear(x, layer._replace(bias=None), None))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    assert not found[6].any()
    for row in range(6):
        assert np.abs(found[row] - expected[row]).max() <= 1e-6 * np.abs(expected[row]).max()


@pytest.mark.parametrize(
    ("total", "outputs", "inputs", "act", "gate", "dtype"),
    [
        (700, 128, 448, "gelu", None, "float16"),
        (300, 192, 512, None, None, "bfloat16"),
        (1, 384, 64, "gelu", "first", "float16"),
        (600, 256, 192, "silu", "second", "bfloat16"),
    ],
)
def test_linear_by_clusters(total: int, outputs: int, inputs: int, act: Any, gate: Any, dtype: str) -> None:
    """Two blocks with other rows, of which each fetches half of the weights for both."""
    x, layer = random(total, inputs, dtype=dtype), laid_out(outputs, inputs, dtype)
    product = exact_linear(x, layer.weight, layer.bias)
    expected = gated(product, act, gate) if gate else EXACT[act](product)
    for seed in (0, 2):
        with emulated_cuda(seed):
            found = cuda.gated_linear(x, layer, act, gate) if gate else cuda.linear(x, layer, act)
        assert np.abs(exact(found) - expected).max() <= BOUND[x.dtype] * max(1, np.abs(expected).max())


@pytest.mark.parametrize(
    ("total", "outputs", "inputs", "dtype"),
    [
        (500, 256, 128, "float16"),
        (129, 256, 128, "bfloat16"),
        (300, 512, 64, "bfloat16"),  # by clusters, whose two blocks have half of each row
        (129, 768, 192, "float16"),
    ],
)
def test_output_norm_by_hoppers_instructions(total: int, outputs: int, inputs: int, dtype: str) -> None:
    layer, x = laid_out(outputs, inputs, dtype), random(total, inputs, dtype=dtype)
    residual = random(total, outputs, dtype=dtype)
    arguments = (x, layer, residual, random(outputs, dtype=dtype), random(outputs, dtype=dtype), 1e-5)
    expected = exact(output_norm.reference_output_norm(*tree_map(as_float32, arguments)))
    for seed in SEEDS:
        with emulated_cuda(2 * seed):
            found = cuda.output_norm(*arguments)
        assert np.abs(exact(found) - expected).max() <= BOUND[x.dtype] * max(1, np.abs(expected).max())
