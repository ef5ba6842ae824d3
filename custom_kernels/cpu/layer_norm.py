"""LayerNorm of rows."""

from typing import NamedTuple

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, at, floats, norm_parameters
from custom_kernels.cpu.library import check, library


class Norm(NamedTuple):
    """A LayerNorm's weight [H], bias [H] or None, and what it adds to the variance."""

    weight: Floats
    bias: Floats | None
    eps: float


def layer_norm(x: Floats, weight: Floats, bias: Floats | None, eps: float, residual: Floats | None = None) -> Floats:
    """Normalise the rows of `x + residual`, [..., H], to mean 0 and variance 1, then scale and shift.

    Args:
        x: [..., H].
        weight: [H].
        bias: [H], or None for no offset.
        eps: added to the variance.
        residual: of x's shape, or None.

    Returns:
        An array of x's shape.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape.
    """
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"layer_norm normalises the last axis, but x has shape {x.shape}.")
    floats("layer_norm", "x", x, x.shape)
    if residual is not None:
        floats("layer_norm", "residual", residual, x.shape)
    width = x.shape[-1]
    norm_parameters("layer_norm", weight, bias, width)
    out = memory.empty(x.shape)
    rows = x.size // width
    check(library().mlx_embed_layer_norm(at(x), at(residual), at(weight), at(bias), eps, rows, width, at(out)))
    return out
