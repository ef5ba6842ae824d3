"""Linear layers on CUDA, for Hopper."""

import mlx.core as mx

from custom_kernels.cuda.activations import ACTIVATIONS, GATES
from custom_kernels.cuda.heuristics import linear_tiles
from custom_kernels.cuda.products import launch_product
from custom_kernels.parameters import Linear


def linear(
    x: mx.array, layer: Linear, act: str | None, residual: mx.array | None = None, gate: str | None = None
) -> mx.array:
    """One launch of `linear.cu` or `linear_streamed.cu`, which read the laid out weight, and add no residual."""
    if residual is not None:
        raise NotImplementedError("The CUDA kernels of linear add no residual.")
    outputs, inputs = layer.weight.shape
    tiles = linear_tiles(outputs, inputs, act is not None, gate is not None)
    constants = {"ACTIVATION": -1 if act is None else ACTIVATIONS.index(act), "HAS_BIAS": layer.bias is not None}
    # Without a bias the kernel still has the parameter, and never reads it.
    others = [x if layer.bias is None else layer.bias]
    if not tiles.streamed:
        return launch_product("linear", x, layer.laid_out, others, [x.shape[0]], tiles, constants)
    if inputs < tiles.columns * (1 if gate else 2):
        raise NotImplementedError(f"The CUDA kernel of this product takes rows wider than {inputs}.")
    constants["GATE"] = GATES.index(gate)
    width = outputs // 2 if gate else outputs
    return launch_product("linear_streamed", x, layer.laid_out, others, [x.shape[0]], tiles, constants, width)
