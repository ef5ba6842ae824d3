"""The greatest of each text's products with a linear layer."""

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, Ints, at, ints, token_rows
from custom_kernels.cpu.library import check_sequences, library
from custom_kernels.cpu.linear import Linear


def linear_max(x: Floats, layer: Linear, cu_seqlens: Ints) -> Floats:
    """The greatest of x W^T + bias over each sequence's tokens; the products are made and compared block by block.

    Args:
        x: [T, K].
        layer: of a weight [N, K] and its bias.
        cu_seqlens: [n + 1] int32, from 0 to T.

    Returns:
        [n, N]; -inf for an empty sequence.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or sequences that do not run from 0 to T.
    """
    total = token_rows("linear_max", "x", x, layer.in_features)
    ints("linear_max", "cu_seqlens", cu_seqlens, (None,))
    count = cu_seqlens.size - 1
    out = memory.empty((count, layer.out_features))
    status = library().mlx_embed_linear_max(at(x), at(cu_seqlens), count, total, layer.handle, at(out))
    check_sequences("linear_max", status, total)
    return out
