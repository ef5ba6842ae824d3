"""All layers of an encoder in one native call are the same as op by op."""

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import normal, rng, starts

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]


def encoder_layer(g: np.random.Generator, width: int, inner: int, with_bias: bool) -> cpu.EncoderLayer:
    def linear(outputs: int, inputs: int) -> cpu.Linear:
        return cpu.Linear(normal(g, outputs, inputs, scale=0.2), normal(g, outputs) if with_bias else None)

    def norm() -> cpu.Norm:
        return cpu.Norm(normal(g, width), normal(g, width) if with_bias else None, float(g.uniform(1e-6, 1e-2)))

    return cpu.EncoderLayer(
        linear(3 * width, width), linear(width, width), norm(), linear(inner, width), linear(width, inner), norm()
    )


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("lengths", [[16], [1, 0, 33, 2, 200], [0]])
def test_an_encoder_is_its_layers_ops(lengths: list[int], depth: int, biased: bool, threads: int) -> None:
    g, heads, width, act = rng(21), 3, 96, ("gelu", "silu", None)[depth - 1]
    layers = [encoder_layer(g, width, 130 + 7 * i, with_bias=i != 1) for i in range(depth)]
    cu = starts(lengths)
    x = normal(g, sum(lengths), width)
    before = x.copy()
    table = normal(g, heads, 2 * max(lengths) + 3) if biased else None
    found = cpu.Encoder(layers, heads, 0.2, act)(x, cu, table)
    expected = x
    for w in layers:
        attended = cpu.attention(cpu.linear(expected, w.qkv), cu, heads, 0.2, table)
        between = cpu.output_norm(attended, w.out, expected, *w.attention_norm)
        expected = cpu.feed_forward(between, w.up, w.down, act, *w.output_norm)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("in_place", [False, True])
def test_some_rows_of_an_encoder(depth: int, in_place: bool, dtype: str, threads: int) -> None:
    """As they are among all, whichever, in any order, and more than there are tokens."""
    if not cpu.attends(dtype):
        pytest.skip(f"this processor does not attend in {dtype}")
    g, heads, width = rng(23), 3, 96
    layers = [encoder_layer(g, width, 130, with_bias=True) for _ in range(depth)]
    if dtype != "float32":
        layers = [w._replace(qkv=cpu.Linear(normal(g, 3 * width, width), None, dtype)) for w in layers]
    cu, x = starts([1, 0, 33, 2]), normal(g, 36, width)
    encoder = cpu.Encoder(layers, heads, 0.2, "gelu", dtype)
    every = encoder(x, cu)
    for wanted in ([0, 1, 1, 34], [35], [7, 3, 3, 9, 0], list(range(36)) * 3):
        rows = np.array(wanted, dtype=np.int32)
        found = encoder(x.copy(), cu, None, rows, in_place=in_place)
        np.testing.assert_allclose(found, every[rows], atol=1e-5)


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
        ((x, starts([5]), normal(g, 2, 9)), "of shape"),
        ((x, starts([5]), None, np.array([0, 5], np.int32)), "rows from 0 to 4"),
        ((x, starts([5]), None, np.array([-1], np.int32)), "rows from 0 to 4"),
        ((x, starts([5]), None, np.zeros(0, np.int32)), "at least one element"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder(*arguments)
    with pytest.raises(TypeError, match="float32"):
        encoder(x.astype(np.float64), starts([5]))
