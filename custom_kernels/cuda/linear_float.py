"""Linear layers in float32 on CUDA, for Hopper."""

import mlx.core as mx

from custom_kernels.cuda import wgmma
from custom_kernels.cuda.activations import GATES
from custom_kernels.cuda.driver import multiprocessors
from custom_kernels.cuda.heuristics import FLOAT_ROWS, HOPPER_MEMORY, RESERVED, float_columns
from custom_kernels.cuda.launch import launch
from custom_kernels.cuda.products import SHIFT, after, for_hopper, given
from custom_kernels.parameters import Linear

GROUPS = FLOAT_ROWS // 64


def linear_float(
    x: mx.array, layer: Linear, act: str | None, gate: str | None = None, residual: mx.array | None = None
) -> mx.array:
    """One launch of `linear_float.cu`: act(x W^T + b) + residual, or a row's halves, one times act of the other."""
    laid_out = for_hopper(layer.laid_out)
    total, inputs = x.shape
    outputs = layer.weight.shape[0]
    columns = float_columns(outputs, gate is not None)
    if columns is None:
        raise NotImplementedError(f"The CUDA kernel of this product in float32 has no {outputs} outputs.")
    stage = columns * 2 * 128 + FLOAT_ROWS * 320  # of two float16 of w, and of x
    stages = (HOPPER_MEMORY - RESERVED) // stage
    tiles = -(-total // FLOAT_ROWS) * (outputs // columns)
    return launch(
        "linear_float",
        [x, laid_out, given(layer.bias, x), given(residual, x)],
        [total],
        (min(multiprocessors(), tiles), (GROUPS + 1) * 128),
        (total, outputs // 2 if gate else outputs),
        x.dtype,
        {"T": x.dtype},
        {
            "BFLOAT": False,
            "K": inputs,
            "N": outputs,
            "COLUMNS": columns,
            "STAGES": stages,
            "GROUPS": GROUPS,
            "CLUSTER": 1,
            "SHIFT": SHIFT,
            **after(layer, act),
            "HAS_RESIDUAL": residual is not None,
            "GATE": GATES.index(gate),
        },
        {"PRODUCT": wgmma.of_registers(columns, mx.float16, by_rows=False)},
        RESERVED + stages * stage,
    )
