"""RMSNorm of rows."""

from typing import NamedTuple

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, at, floats
from custom_kernels.cpu.library import check, library


class RMSNorm(NamedTuple):
    """An RMSNorm's weight [H], and what it adds to the mean of squares and to the weight."""

    weight: Floats
    eps: float
    offset: float = 0.0


def rms_norm(x: Floats, weight: Floats, eps: float, residual: Floats | None = None, offset: float = 0.0) -> Floats:
    """x / sqrt(mean(x^2) + eps) * (offset + weight) + residual, over the last axis.

    Args:
        x: [..., H].
        weight: [H].
        eps: added to the mean of squares.
        residual: of x's shape, or None.
        offset: added to the weight.

    Returns:
        An array of x's shape.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape.
    """
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"rms_norm normalises the last axis, but x has shape {x.shape}.")
    floats("rms_norm", "x", x, x.shape)
    if residual is not None:
        floats("rms_norm", "residual", residual, x.shape)
    width = x.shape[-1]
    floats("rms_norm", "weight", weight, (width,))
    out = memory.empty(x.shape)
    check(library().mlx_embed_rms_norm(at(x), at(residual), at(weight), eps, offset, x.size // width, width, at(out)))
    return out
