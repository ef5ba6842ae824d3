"""The greatest of each text's products with a linear layer on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.launch import launch
from custom_kernels.parameters import Linear

# Products that are there at once, and threads of a block.
BLOCK, THREADS = 2**24, 256


def linear_max(x: mx.array, layer: Linear, cu_seqlens: mx.array) -> mx.array:
    """MLX's products, block by block of columns, and one launch of `linear_max.cu` a block, without a scatter."""
    n = cu_seqlens.shape[0] - 1
    blocks = []
    for part in layer.in_columns(max(BLOCK // x.shape[0], 1)):
        products, count = part.times(x), part.weight.shape[0]
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
