"""GELU as composed ops, which `mx.compile` fuses into one kernel."""

import math

import mlx.core as mx


def gelu(x: mx.array) -> mx.array:
    """The exact form: x * Phi(x), by erf."""
    return 0.5 * x * (1 + mx.erf(x * (1 / math.sqrt(2))))


def gelu_tanh(x: mx.array) -> mx.array:
    """The tanh approximation: `gelu_new` and `gelu_pytorch_tanh` of Hugging Face configurations."""
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
