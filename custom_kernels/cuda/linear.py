"""Linear layers on CUDA, for Hopper."""

import mlx.core as mx

from custom_kernels.cuda.activations import GATES
from custom_kernels.cuda.heuristics import linear_tiles, streamed_tiles
from custom_kernels.cuda.linear_float import linear_float
from custom_kernels.cuda.products import after, given, launch_product
from custom_kernels.parameters import Linear


def linear(x: mx.array, layer: Linear, act: str | None, residual: mx.array | None = None) -> mx.array:
    """One launch of `linear.cu` or `linear_streamed.cu`, which add no residual, or of `linear_float.cu`.

    All read the laid out weight.
    """
    if x.dtype == mx.float32:
        return linear_float(x, layer, act, residual=residual)
    if residual is not None:
        raise NotImplementedError("The CUDA kernels of linear add no residual in 16 bits.")
    outputs, inputs = layer.weight.shape
    tiles = linear_tiles(outputs, inputs)
    if tiles.streamed:
        return stream(x, layer, act)
    return launch_product("linear", x, layer.laid_out, [given(layer.bias, x)], [x.shape[0]], tiles, after(layer, act))


def stream(x: mx.array, layer: Linear, act: str | None, gate: str | None = None) -> mx.array:
    """One launch of `linear_streamed.cu`: act(x W^T + b), or the halves of each row one times act of the other."""
    if x.dtype == mx.float32:
        return linear_float(x, layer, act, gate)
    outputs = layer.weight.shape[0]
    tiles = streamed_tiles(outputs)
    constants = after(layer, act) | {"GATE": GATES.index(gate)}
    width = outputs // 2 if gate else outputs
    others = [given(layer.bias, x)]
    return launch_product("linear_streamed", x, layer.laid_out, others, [x.shape[0]], tiles, constants, width)
