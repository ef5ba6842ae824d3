"""GELU as the CUDA kernels have it: the formula, and every float16 on the device."""

import math
import re

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cuda
from custom_kernels.cuda.launch import kernel_source
from tests.custom_kernels.conftest import exact


def test_the_quick_gelu_is_within_a_quarter_of_a_rounding() -> None:
    """The formula of activations.cuh, with its coefficients, at every float16."""
    steps = re.findall(r"p = (\S+)f \+ u \* (\S+?)f?;", kernel_source("shared/activations.cuh"))
    assert [factor for _, factor in steps[1:]] == ["p"] * 5
    x = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    x = x[np.isfinite(x)]
    with np.errstate(over="ignore", invalid="ignore"):
        u = x * x
        p = np.float32(steps[0][1])
        for coefficient, _ in steps:
            p = np.float32(coefficient) + u * p
        found = x / (1 + np.exp2(x * p))
    wide = x.astype(np.float64)
    expected = wide * np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in wide])
    half_ulp = np.maximum(2.0 ** (np.floor(np.log2(np.maximum(np.abs(expected), 2.0**-14))) - 11), 2.0**-25)
    assert (np.abs(found - expected) / half_ulp).max() <= 0.25


@pytest.mark.skipif(not mx.cuda.is_available(), reason="MLX finds no CUDA device here")
def test_gelu_of_every_float16_on_cuda() -> None:
    x = np.arange(2**16, dtype=np.uint16).view(np.float16)
    x = x[np.isfinite(x)]
    found = exact(cuda.activate(mx.array(x[None]), "gelu"))[0]
    expected = x.astype(np.float64) * np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64)])
    expected = expected.astype(np.float16).astype(np.float64)
    ulp = np.maximum(2.0 ** (np.floor(np.log2(np.maximum(np.abs(expected), 2.0**-14))) - 10), 2.0**-24)
    assert (np.abs(found - expected) / ulp).max() <= 1
