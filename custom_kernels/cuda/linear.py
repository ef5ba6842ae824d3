"""Linear layers on CUDA, for Hopper."""

import mlx.core as mx

from custom_kernels.cuda.activations import ACTIVATIONS, GATES
from custom_kernels.cuda.heuristics import linear_tiles, streamed_tiles
from custom_kernels.cuda.linear_float import linear_float
from custom_kernels.cuda.products import launch_product
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
    return launch_product("linear", x, layer.laid_out, [bias_of(x, layer)], [x.shape[0]], tiles, after(layer, act))


def stream(x: mx.array, layer: Linear, act: str | None, gate: str | None = None) -> mx.array:
    """One launch of `linear_streamed.cu`: act(x W^T + b), or the halves of each row one times act of the other."""
    if x.dtype == mx.float32:
        return linear_float(x, layer, act, gate)
    outputs = layer.weight.shape[0]
    tiles = streamed_tiles(outputs)
    constants = after(layer, act) | {"GATE": GATES.index(gate)}
    width = outputs // 2 if gate else outputs
    others = [bias_of(x, layer)]
    return launch_product("linear_streamed", x, layer.laid_out, others, [x.shape[0]], tiles, constants, width)


def bias_of(x: mx.array, layer: Linear) -> mx.array:
    """The bias; without one the kernels still have the parameter, and never read it."""
    return x if layer.bias is None else layer.bias


def after(layer: Linear, act: str | None) -> dict[str, int]:
    """What is compiled in of what follows the product."""
    return {"ACTIVATION": -1 if act is None else ACTIVATIONS.index(act), "HAS_BIAS": layer.bias is not None}
