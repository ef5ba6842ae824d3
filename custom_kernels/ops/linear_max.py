"""The greatest of each text's products with a linear layer: a vocabulary's logits, or scores of a query's tokens.

Where N is a vocabulary, the products [T, N] of a batch take gigabytes, and all that is kept of them is a row a text.
"""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx

from custom_kernels import cuda, metal
from custom_kernels.arrays import FLOATS, spelled, starts, texts_of
from custom_kernels.choice.op import Arguments, Load, Op, typical_encoders
from custom_kernels.ops.linear import check, sample
from custom_kernels.packed import sequence_ids
from custom_kernels.parameters import Linear

# The products that are there at once.
BLOCK = 2**24


def linear_max(x: mx.array, layer: Linear, cu_seqlens: mx.array, *, backend: str | None = None) -> mx.array:
    """The greatest of x W^T + bias over each sequence's tokens; the products are made and compared block by block.

    Args:
        x: [T, K].
        layer: of a weight [N, K] and its bias.
        cu_seqlens: int32 [n + 1], from 0 to T.
        backend: as in `layer_norm`, "fast" aside.

    Returns:
        float32 [n, N]; -inf for an empty sequence.

    Raises:
        ValueError: shapes that do not fit, or an unknown back end.
        TypeError: a dtype of x that is not float32, float16 or bfloat16.
        RuntimeError: a named back end that this machine does not have.
    """
    check("linear_max", x, layer)
    if cu_seqlens.ndim != 1 or cu_seqlens.dtype != mx.int32 or not cu_seqlens.size:
        raise ValueError(f"linear_max needs cu_seqlens int32 [n + 1], got {cu_seqlens.dtype} {cu_seqlens.shape}.")
    if x.dtype not in FLOATS:
        raise TypeError(f"linear_max takes float32, float16 or bfloat16, but x is {x.dtype}.")
    outputs, inputs = layer.weight.shape
    if not x.size or cu_seqlens.size == 1:
        return mx.full((cu_seqlens.size - 1, outputs), -float("inf"))
    variant = Variant(x.dtype, outputs, inputs, layer.bias is not None)
    return LINEAR_MAX.pick(backend, variant, Load.of(x.shape[0]))(x, layer, cu_seqlens)


class Variant(NamedTuple):
    """What a kernel would be compiled for."""

    dtype: mx.Dtype
    outputs: int
    inputs: int
    has_bias: bool

    def __str__(self) -> str:
        return f"{spelled(self.dtype)}, {self.inputs} to {self.outputs} wide"


def reference_linear_max(x: mx.array, layer: Linear, cu_seqlens: mx.array) -> mx.array:
    """The same from composed MLX ops, columns after columns."""
    total, n = x.shape[0], cu_seqlens.shape[0] - 1
    owner = sequence_ids(cu_seqlens, total)
    blocks = []
    for part in layer.in_columns(max(BLOCK // total, 1)):
        products = part.times(x).astype(mx.float32)
        blocks.append(mx.full((n, products.shape[1]), -float("inf")).at[owner].maximum(products))
    return mx.concatenate(blocks, axis=-1)


def _sample(variant: Variant, load: Load | None) -> Arguments:
    dtype, outputs, inputs, has_bias = variant
    # More rows than a block of the native kernel has in one of the texts, and texts that share one.
    texts = [1, 3, 300, 37, 2, 1, 4] if load is None else texts_of(load.tokens)
    x, layer = sample(sum(texts), outputs, inputs, dtype, load, has_bias)
    return (x, Linear(layer.weight, layer.bias), starts(*texts)), {}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for width, _, dtype, load in typical_encoders():
        yield Variant(dtype, 2000, width, True), load


LINEAR_MAX = Op(
    "linear_max",
    {"metal": metal.linear_max, "cuda": cuda.linear_max},
    reference_linear_max,
    lambda variant: {"reference": reference_linear_max},
    _sample,
    _typical,
)
