"""The greatest of each text's products with a linear layer on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.launch import launch
from custom_kernels.parameters import Linear

# Products that are there at once, and threads of a block.
BLOCK, THREADS = 2**24, 256


def linear_max(x: mx.array, layer: Linear, cu_seqlens: mx.array) -> mx.array:
    """MLX's products, block by block of columns, and one launch of `linear_max.cu` a block, without a scatter."""
    total, outputs, n = x.shape[0], layer.weight.shape[0], cu_seqlens.shape[0] - 1
    columns = max(BLOCK // total, 1)
    blocks = []
    for start in range(0, outputs, columns):
        count = min(columns, outputs - start)
        weight = layer.weight[start : start + count].T
        products = x @ weight if layer.bias is None else mx.addmm(layer.bias[start : start + count], x, weight)
        across = -(-count // THREADS)
        blocks.append(
            launch(
                "linear_max",
                [products, cu_seqlens],
                [count, across],
                (n * across, THREADS),
                (n, count),
                mx.float32,
                {"T": products.dtype},
                {"THREADS": THREADS},
            )
        )
    return mx.concatenate(blocks, axis=-1)
