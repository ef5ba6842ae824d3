"""Linear layers with the residual and its LayerNorm on CUDA, for Hopper."""

import mlx.core as mx

from custom_kernels.cuda.heuristics import NORM_OUTPUTS, ProductTiles
from custom_kernels.cuda.products import launch_product
from custom_kernels.parameters import Linear


def output_norm(
    x: mx.array, layer: Linear, residual: mx.array, weight: mx.array, bias: mx.array | None, eps: float
) -> mx.array:
    """One launch of `output_norm.cu`, which reads the layer's weight as it is laid out."""
    total, outputs = x.shape[0], layer.weight.shape[0]
    if outputs not in NORM_OUTPUTS:
        raise NotImplementedError(f"The CUDA kernel of output_norm has no rows {outputs} wide.")
    if layer.bias is None or bias is None:
        raise NotImplementedError("The CUDA kernel of output_norm is for a layer and a LayerNorm that have a bias.")
    others = [layer.bias, residual, weight, bias]
    return launch_product(
        "output_norm", x, layer.laid_out, others, [total, eps], ProductTiles(2, 128), {}, parameters=3
    )
