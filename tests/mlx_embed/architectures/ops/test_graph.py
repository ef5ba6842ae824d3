"""Weights that are laid out for a GPU's kernels, and how encoders hand them on."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import custom_kernels
from custom_kernels import gelu
from custom_kernels.ops.linear import reference_linear
from custom_kernels.ops.output_norm import reference_output_norm
from mlx_embed.architectures import bert, ops
from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.architectures.ops import graph
from tests.custom_kernels.conftest import random


class Spy:
    """Stands in for this package's functions: what ops hands them, and what they compute."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.laid_out: list[mx.array | None] = []
        monkeypatch.setattr(custom_kernels, "linear", self.linear)
        monkeypatch.setattr(custom_kernels, "output_norm", self.output_norm)
        monkeypatch.setattr(custom_kernels, "lay_out_linear", lambda weight, then: weight * 2)

    def linear(self, *arguments: Any) -> mx.array:
        self.laid_out.append(arguments[1].laid_out)
        return reference_linear(*arguments)

    def output_norm(self, *arguments: Any) -> mx.array:
        self.laid_out.append(arguments[1].laid_out)
        return reference_output_norm(*arguments)


class Pair(nn.Module):
    """Two linear layers and a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(32, 48), nn.Linear(48, 32), LayerNorm(32, 1e-5)
        self.first.bias, self.second.bias = random(48), random(32)
        self.norm.weight, self.norm.bias = random(32), random(32)

    def __call__(self, x: mx.array, residual: mx.array) -> mx.array:
        found: mx.array = ops.output_norm(ops.linear(x, self.first, "gelu"), self.second, residual, self.norm)
        return found


def by_mlx(pair: Pair, x: mx.array, residual: mx.array) -> np.ndarray:
    hidden = gelu(x @ pair.first.weight.T + pair.first.bias)
    return np.array(pair.norm(hidden @ pair.second.weight.T + pair.second.bias, residual=residual))


def test_encoders_hand_laid_out_weights_to_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    pair, x, residual = Pair(), random(7, 32), random(7, 32)
    expected = by_mlx(pair, x, residual)
    assert np.allclose(np.array(pair(x, residual)), expected, atol=1e-5)
    assert spy.laid_out == [None, None]
    spy.laid_out.clear()

    before = [name for name, _ in tree_flatten(pair.parameters())]
    graph.lay_out(pair)
    assert [name for name, _ in tree_flatten(pair.parameters())] == before, "what is laid out is no parameter"
    assert np.allclose(np.array(pair(x, residual)), expected, atol=1e-5)
    for laid_out, layer in zip(spy.laid_out, (pair.first, pair.second), strict=True):
        np.testing.assert_array_equal(np.array(laid_out), np.array(layer.weight) * 2)
    spy.laid_out.clear()

    pair.second.weight = pair.second.weight + 1  # what was laid out is of another weight now
    assert np.allclose(np.array(pair(x, residual)), by_mlx(pair, x, residual), atol=1e-5)
    assert spy.laid_out[1] is None
    assert spy.laid_out[0] is not None


def test_a_short_batch_is_handed_the_weights_as_they_are_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the same object as long as none is replaced, since it keeps them laid end to end."""
    seen: list[Any] = []

    def kernel(x: mx.array, cu_seqlens: mx.array, weights: Any, *rest: Any) -> mx.array:
        seen.append(weights)
        return x

    monkeypatch.setattr(graph, "short_encoder", lambda *_: kernel)
    encoder = bert.Model(bert.Config(50, 64, 2, 2, 128, 512))
    ids, starts = mx.zeros((5,), dtype=mx.int32), mx.array([0, 5], dtype=mx.int32)
    for _ in range(2):
        encoder(ids, starts, 5)
    encoder.layers[1].up.bias = mx.ones_like(encoder.layers[1].up.bias)
    encoder(ids, starts, 5)
    first, again, changed = seen
    assert first is again
    assert changed is not first
    assert changed[1].up_bias is encoder.layers[1].up.bias
    assert changed[0].up_bias is first[0].up_bias
    assert changed.end_to_end.shape == (changed.size,)


@pytest.mark.parametrize("cuda", [True, False])
def test_angles_come_in_halves_where_kernels_take_them(monkeypatch: pytest.MonkeyPatch, cuda: bool) -> None:
    monkeypatch.setattr(mx.cuda, "is_available", lambda: cuda)
    rope = ops.Rope(64, 10000.0, 512)
    turn = graph.rotation(mx.zeros((3,), dtype=mx.int32), rope, 100, None)
    assert turn.cos.shape == turn.sin.shape == (128, 32)
    if not cuda:
        assert turn.halves is None
        return
    assert turn.halves is not None
    for half, whole in zip(turn.halves, (turn.cos, turn.sin), strict=True):
        assert half.dtype == mx.float16
        assert whole.dtype == mx.float32
        np.testing.assert_array_equal(np.array(half), np.array(whole).astype(np.float16))
