"""Linear layers that are an activation and what it gates on CUDA, for Hopper."""

import mlx.core as mx

from custom_kernels.cuda.linear import stream
from custom_kernels.parameters import Linear


def gated_linear(x: mx.array, layer: Linear, act: str, gate: str) -> mx.array:
    """One launch of `linear_streamed.cu`, which reads the weight as it is laid out."""
    return stream(x, layer, act, gate)
