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
from mlx_embed.architectures import ops
from mlx_embed.architectures.norm import LayerNorm
from tests.custom_kernels.conftest import random


class Spy:
    """Stands in for this package's functions: what ops hands them, and what they compute."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.laid_out: list[mx.array | None] = []
        monkeypatch.setattr(custom_kernels, "linear", self.linear)
        monkeypatch.setattr(custom_kernels, "output_norm", self.output_norm)
        monkeypatch.setattr(custom_kernels, "lay_out_linear", lambda weight: weight * 2)

    def linear(self, *arguments: Any) -> mx.array:
        self.laid_out.append(arguments[1].laid_out)
        return reference_linear(*arguments)

    def output_norm(self, *arguments: Any) -> mx.array:
        self.laid_out.append(arguments[1].laid_out)
        return reference_output_norm(*arguments)


def test_encoders_hand_laid_out_weights_to_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    first, second, norm = nn.Linear(32, 48), nn.Linear(48, 32), LayerNorm(32, 1e-5, "custom")
    first.bias, second.bias, norm.weight, norm.bias = random(48), random(32), random(32), random(32)
    encoder = nn.Sequential(first, second)
    x, residual = random(7, 32), random(7, 32)
    hidden = ops.linear(x, first, "gelu")
    expected = ops.output_norm(hidden, second, residual, norm)
    assert np.allclose(np.array(hidden), np.array(gelu(first(x))), atol=1e-5)
    assert np.allclose(np.array(expected), np.array(norm(second(hidden), residual=residual)), atol=1e-5)
    assert spy.laid_out == [None, None]

    ops.lay_out(encoder)
    names = [name for name, _ in tree_flatten(encoder.parameters())]
    assert all("laid_out" not in name for name in names)
    assert np.allclose(
        np.array(ops.output_norm(ops.linear(x, first, "gelu"), second, residual, norm)), np.array(expected)
    )
    for laid_out, layer in zip(spy.laid_out[2:], (first, second), strict=True):
        np.testing.assert_array_equal(np.array(laid_out), np.array(layer.weight) * 2)
    spy.laid_out.clear()
    second.weight = second.weight + 1  # what was laid out is of another weight now
    found = ops.output_norm(hidden, second, residual, norm)
    assert np.allclose(np.array(found), np.array(norm(second(hidden), residual=residual)), atol=1e-5)
    assert spy.laid_out == [None]
