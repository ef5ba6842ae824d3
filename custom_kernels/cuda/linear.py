"""Linear layers on CUDA, for Hopper."""

import mlx.core as mx

from custom_kernels.cuda.activations import ACTIVATIONS
from custom_kernels.cuda.heuristics import linear_tiles
from custom_kernels.cuda.products import launch_product
from custom_kernels.parameters import Linear


def linear(x: mx.array, layer: Linear, act: str | None, residual: mx.array | None = None) -> mx.array:
    """One launch of `linear.cu`, which reads the weight as it is laid out, and takes no residual."""
    if residual is not None:
        raise NotImplementedError("The CUDA kernel of linear adds no residual.")
    total, (outputs, inputs) = x.shape[0], layer.weight.shape
    groups, columns = linear_tiles(outputs, inputs)
    tiles = -(-total // (groups * 64)) * (outputs // columns)
    constants = {"ACTIVATION": -1 if act is None else ACTIVATIONS.index(act), "HAS_BIAS": layer.bias is not None}
    # Without a bias the kernel still has the parameter, and never reads it.
    bias = x if layer.bias is None else layer.bias
    return launch_product("linear", x, layer.laid_out, [bias], [total], tiles, groups, columns, constants)
