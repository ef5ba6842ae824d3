"""Linear layers whose outputs are an activation and what it gates, in the same launch: see `linear`.

The product alone takes little more than its activation, which reads twice what it writes: in one launch only what is
left of both halves is written.
"""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx

from custom_kernels import cuda
from custom_kernels.arrays import spelled
from custom_kernels.choice.op import Arguments, Load, Op, typical_encoders
from custom_kernels.cuda import heuristics
from custom_kernels.ops.activate import ACTIVATIONS, Gate, activate, reference_activate
from custom_kernels.ops.linear import check, linear, numpy_product, of_many_dtypes, sample
from custom_kernels.parameters import Linear

GATES: tuple[Gate, ...] = ("first", "second")


def gated_linear(x: mx.array, layer: Linear, act: str, gate: Gate) -> mx.array:
    """act(a) * c, where a and c are the halves of each row of x W^T + b.

    Args:
        x: [T, K], a whole array and not a slice of one.
        layer: of a weight [N, K].
        act: a key of ACTIVATIONS.
        gate: which half is a, "first" or "second".

    Returns:
        [T, N / 2] of x's dtype; where the layer has another, of the one that MLX makes of both.

    Raises:
        ValueError: shapes that do not fit, or an unknown activation or gate.
    """
    check("gated_linear", x, layer)
    outputs, inputs = layer.weight.shape
    if act not in ACTIVATIONS or gate not in GATES:
        raise ValueError(f"gated_linear has no {act!r} with gate {gate!r}; it has {', '.join((*ACTIVATIONS, *GATES))}.")
    if outputs % 2:
        raise ValueError(f"gated_linear takes an even number of outputs, got {outputs}.")
    few = heuristics.is_few(x.dtype, x.shape[0], outputs, inputs)
    if layer.laid_out is None or few or of_many_dtypes(x, layer):
        return builtin_gated_linear(x, layer, act, gate)
    variant = Variant(x.dtype, outputs, inputs, act, gate, layer.bias is not None)
    return GATED_LINEAR.pick(None, variant, Load.of(x.shape[0]))(x, layer, act, gate)


class Variant(NamedTuple):
    """What a kernel is compiled for."""

    dtype: mx.Dtype
    outputs: int
    inputs: int
    act: str
    gate: Gate
    has_bias: bool

    def __str__(self) -> str:
        return f"{spelled(self.dtype)}, {self.inputs} to {self.outputs} wide, {self.act} as a gate"


def builtin_gated_linear(x: mx.array, layer: Linear, act: str, gate: Gate) -> mx.array:
    """The same by the product and the activation as this package has them."""
    return activate(linear(x, layer), act, gate)


def reference_gated_linear(x: mx.array, layer: Linear, act: str, gate: Gate) -> mx.array:
    """The same from MLX's own ops alone."""
    return reference_activate(layer.times(x), act, gate)


def _sample(variant: Variant, load: Load | None) -> Arguments:
    dtype, outputs, inputs, act, gate, has_bias = variant
    # Rows enough for every block of a kernel to have several tiles, of which the last is partly empty.
    return (*sample(601, outputs, inputs, dtype, load, has_bias), act, gate), {}


def _by_rows(x: mx.array, layer: Linear, act: str, gate: Gate) -> mx.array:
    return reference_activate(numpy_product(x, layer), act, gate)


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for width, _, dtype, load in typical_encoders():
        if backend == "cuda":
            yield Variant(dtype, 2 * 3072, 1024, "silu", "second", False), load  # Qwen3-Embedding-0.6B
        elif (backend, dtype, width) == (None, mx.float32, 384):
            yield Variant(dtype, 2 * width, width, "gelu", "first", True), load


GATED_LINEAR = Op(
    "gated_linear",
    {"cuda": cuda.gated_linear},
    reference_gated_linear,
    lambda variant: {"built-in": builtin_gated_linear},
    _sample,
    _typical,
    by_rows=_by_rows,
    meanwhile=True,
)
