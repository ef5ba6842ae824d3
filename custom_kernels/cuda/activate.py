"""Activations and gates on CUDA."""

import mlx.core as mx

from custom_kernels.cuda.activations import ACTIVATIONS, GATES
from custom_kernels.cuda.launch import launch


def activate(x: mx.array, act: str, gate: str | None = None) -> mx.array:
    """One launch of `activate.cu`."""
    rows, width = x.shape[0], x.shape[1] // (2 if gate else 1)
    vector = next(v for v in (16 // x.dtype.size, 4, 2, 1) if width % v == 0)
    constants = {
        "WIDTH": width,
        "VEC": vector,
        "GATE": GATES.index(gate),
        "ACTIVATION": ACTIVATIONS.index(act),
    }
    grid = (-(-rows * width // (vector * 256)), 256)
    return launch("activate", [x], [rows], grid, (rows, width), x.dtype, {"T": x.dtype}, constants)
