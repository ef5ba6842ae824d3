"""The greatest of each text's products with a linear layer on Metal."""

import mlx.core as mx

from custom_kernels.metal.launch import kernel, round_up, shared_source
from custom_kernels.parameters import Linear

# Products that are there at once, and threads of a group.
BLOCK, THREADS = 2**24, 256


def linear_max(x: mx.array, layer: Linear, cu_seqlens: mx.array, *, block: int = BLOCK) -> mx.array:
    """MLX's products, block by block of columns, and one launch of `linear_max.metal` a block, without a scatter."""
    n = cu_seqlens.size - 1
    blocks = []
    for part in layer.in_columns(max(block // x.shape[0], 1)):
        products, columns = part.times(x), part.weight.shape[0]
        (out,) = kernel("linear_max", "products", "cu_seqlens", header=shared_source("greatest"))(
            inputs=[products, cu_seqlens],
            template=[("COLUMNS", columns)],
            grid=(round_up(columns, THREADS), n, 1),
            threadgroup=(THREADS, 1, 1),
            output_shapes=[(n, columns)],
            output_dtypes=[mx.float32],
            stream=mx.gpu,
        )
        blocks.append(out)
    return mx.concatenate(blocks, axis=-1)
