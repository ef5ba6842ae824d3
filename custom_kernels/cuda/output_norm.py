"""Linear layers with the residual and its LayerNorm on CUDA, for Hopper."""

import mlx.core as mx

from custom_kernels.cuda.heuristics import NORM_OUTPUTS, SHARED_NORM_OUTPUTS, norm_tiles
from custom_kernels.cuda.products import launch_product
from custom_kernels.parameters import Linear


def output_norm(
    x: mx.array, layer: Linear, residual: mx.array, weight: mx.array, bias: mx.array | None, eps: float
) -> mx.array:
    """One launch of `output_norm.cu` or `output_norm_streamed.cu`, which read the laid out weight."""
    outputs = layer.weight.shape[0]
    if outputs not in (*NORM_OUTPUTS, *SHARED_NORM_OUTPUTS):
        raise NotImplementedError(f"The CUDA kernels of output_norm have no rows {outputs} wide.")
    if layer.bias is None or bias is None:
        raise NotImplementedError("The CUDA kernels of output_norm are for a layer and a LayerNorm that have a bias.")
    tiles = norm_tiles(outputs)
    name = "output_norm_streamed" if tiles.streamed else "output_norm"
    others = [layer.bias, residual, weight, bias]
    return launch_product(name, x, layer.laid_out, others, [x.shape[0], eps], tiles, {}, parameters=3)
