"""Activations and gates on Metal."""

import mlx.core as mx

from custom_kernels.metal.launch import kernel, shared_source

# Their numbers in activations.metal are their places.
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")
GATES = (None, "first", "second")


def activate(x: mx.array, act: str, gate: str | None = None) -> mx.array:
    """One launch of `activate.metal`: a thread for up to 4 elements."""
    rows, width = x.shape[0], x.shape[1] // (2 if gate else 1)
    each = next(n for n in (4, 2, 1) if width % n == 0)
    (out,) = kernel("activate", "x", header=shared_source("activations"))(
        inputs=[x],
        template=[
            ("T", x.dtype),
            ("WIDTH", width),
            ("EACH", each),
            ("GATE", GATES.index(gate)),
            ("ACTIVATION", ACTIVATIONS.index(act)),
        ],
        grid=(width // each, rows, 1),
        threadgroup=(min(width // each, 256), 1, 1),
        output_shapes=[(rows, width)],
        output_dtypes=[x.dtype],
        stream=mx.gpu,
    )
    return out
