"""A linear layer with the residual and its LayerNorm."""

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, at, floats, norm_parameters, token_rows
from custom_kernels.cpu.library import check, library
from custom_kernels.cpu.linear import Linear


def output_norm(
    x: Floats, layer: Linear, residual: Floats | None, weight: Floats | None, bias: Floats | None, eps: float
) -> Floats:
    """LayerNorm(x W^T + bias + residual), in one pass over blocks of rows: what follows attention.

    Args:
        x: [T, K].
        layer: of a weight [H, K] and its bias.
        residual: [T, H], or None.
        weight: the LayerNorm's [H], or None for the sum alone.
        bias: the LayerNorm's [H], or None for no offset.
        eps: added to the variance.

    Returns:
        [T, H].

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape.
    """
    rows, width = token_rows("output_norm", "x", x, layer.in_features), layer.out_features
    if residual is not None:
        floats("output_norm", "residual", residual, (rows, width))
    norm_parameters("output_norm", weight, bias, width)
    out = memory.empty((rows, width))
    check(library().mlx_embed_output_norm(at(x), rows, layer.handle, at(residual), at(weight), at(bias), eps, at(out)))
    return out
