"""Linear layers of few rows on Metal."""

import mlx.core as mx

from custom_kernels.metal.activate import ACTIVATIONS
from custom_kernels.metal.launch import MATRICES, RUNS, kernel, shared_source
from custom_kernels.parameters import Linear

# A launch is compiled for up to so many rows. MLX's own product of one row is a single launch, and more rows than
# these fill a GPU in its way.
ROWS = (8, 16, 32, 64)
MOST_SIMDGROUPS = 8


def rows_of(rows: int) -> int | None:
    """For how many rows the launch of these is compiled, or None where there is no kernel."""
    return None if rows < 2 else next((most for most in ROWS if rows <= most), None)


def linear(x: mx.array, layer: Linear, act: str | None, residual: mx.array | None = None) -> mx.array:
    """One launch of `linear.metal`, with all that follows the product: a threadgroup for 8 columns.

    Raises:
        NotImplementedError: other than 2 to 64 rows, inputs that are no multiple of 64, or outputs of 8.
    """
    outputs, inputs = layer.weight.shape
    most = rows_of(x.shape[0])
    if most is None or inputs % 64 or outputs % 8:
        raise NotImplementedError(
            f"The Metal kernel of linear takes 2 to {ROWS[-1]} rows, inputs by 64 and outputs by 8; these are "
            f"{x.shape[0]} rows, {inputs} inputs and {outputs} outputs."
        )
    split = _split(inputs // 64)
    header = MATRICES + RUNS + shared_source("activations")
    (out,) = kernel("linear", "x", "weight", "bias", "residual", header=header)(
        # Without a bias or a residual the kernel still has the parameter, and never reads it.
        inputs=[x, layer.weight, x if layer.bias is None else layer.bias, x if residual is None else residual],
        template=[
            ("T", x.dtype),
            ("OUTPUTS", outputs),
            ("INPUTS", inputs),
            ("GROUPS", most // 8),
            ("SPLIT", split),
            ("ACTIVATION", 0 if act is None else 1 + ACTIVATIONS.index(act)),
            ("HAS_BIAS", layer.bias is not None),
            ("HAS_RESIDUAL", residual is not None),
        ],
        grid=(outputs // 8 * 32 * split, 1, 1),
        threadgroup=(32 * split, 1, 1),
        output_shapes=[(x.shape[0], outputs)],
        output_dtypes=[x.dtype],
        stream=mx.gpu,
    )
    return out


def _split(steps: int) -> int:
    """The simdgroups that share so many steps: as few as take no longer."""
    return min(range(1, MOST_SIMDGROUPS + 1), key=lambda simdgroups: (-(-steps // simdgroups), simdgroups))
