"""The activations of feed-forward layers, alone or as gates.

`mx.compile` fuses the composed ops into one kernel. The CUDA kernel reads and writes at the memory's speed, which the
fused one misses by a tenth, and neither it nor Metal's needs a copy of a gate's halves.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import mlx.core as mx

from custom_kernels import cuda, metal
from custom_kernels.arrays import FLOATS, random, spelled
from custom_kernels.choice.op import Arguments, Load, Op, typical_encoders

Gate = Literal["first", "second"]


def gelu(x: mx.array) -> mx.array:
    """The exact form: x * Phi(x), by erf."""
    return 0.5 * x * (1 + mx.erf(x * (1 / math.sqrt(2))))


def gelu_tanh(x: mx.array) -> mx.array:
    """The tanh approximation: `gelu_new` and `gelu_pytorch_tanh` of Hugging Face configurations."""
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def relu(x: mx.array) -> mx.array:
    """max(x, 0)."""
    return mx.maximum(x, 0)


def silu(x: mx.array) -> mx.array:
    """x * sigmoid(x)."""
    return x * mx.sigmoid(x)


ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
    "silu": silu,
}


def activate(x: mx.array, act: str, gate: Gate | None = None, *, backend: str | None = None) -> mx.array:
    """act(x), or with a `gate` act(a) * b of the halves of each row.

    Args:
        x: [T, N], float32, float16 or bfloat16.
        act: a key of ACTIVATIONS.
        gate: which half of the row is a.
        backend: as in `layer_norm`, "fast" aside.

    Returns:
        [T, N], or [T, N / 2] with a gate, of x's dtype.

    Raises:
        ValueError: an unknown activation or back end, or a shape that does not fit.
        TypeError: a dtype that is not one of the three.
        RuntimeError: a named back end that this machine does not have.
    """
    if act not in ACTIVATIONS or gate not in (None, "first", "second"):
        raise ValueError(f"activate has no {act!r} with gate {gate!r}; it has {', '.join(ACTIVATIONS)}.")
    if x.ndim != 2 or (gate and x.shape[1] % 2):
        raise ValueError(f"activate needs x [T, N], and an even N for a gate, got {x.shape}.")
    if x.dtype not in FLOATS:
        raise TypeError(f"activate takes float32, float16 or bfloat16, got {x.dtype}.")
    if not x.size:
        return reference_activate(x, act, gate)
    return ACTIVATE.pick(backend, Variant(x.shape[1], x.dtype, act, gate), Load.of(x.shape[0]))(x, act, gate)


class Variant(NamedTuple):
    """What a kernel is compiled for."""

    width: int
    dtype: mx.Dtype
    act: str
    gate: Gate | None

    def __str__(self) -> str:
        return f"{spelled(self.dtype)}, {self.width} wide, {self.act}{'' if self.gate is None else ' as a gate'}"


def reference_activate(x: mx.array, act: str, gate: Gate | None = None) -> mx.array:
    """The same from composed MLX ops."""
    if gate is None:
        return ACTIVATIONS[act](x)
    first, second = mx.split(x, 2, axis=-1)
    return ACTIVATIONS[act](first) * second if gate == "first" else first * ACTIVATIONS[act](second)


def _sample(variant: Variant, load: Load | None) -> Arguments:
    width, dtype, act, gate = variant
    return (random(3 if load is None else load.tokens, width, dtype=dtype, scale=3.0), act, gate), {}


def _typical(backend: str | None) -> Iterator[tuple[Variant, Load]]:
    for width, _, dtype, load in typical_encoders():
        yield Variant(4 * width, dtype, "gelu", None), load
    for _, _, dtype, load in typical_encoders():
        yield Variant(2 * 3072, dtype, "silu", "second"), load  # Qwen3-Embedding-0.6B


ACTIVATE = Op(
    "activate",
    {"metal": metal.activate, "cuda": cuda.activate},
    reference_activate,
    lambda variant: {"reference": reference_activate},
    _sample,
    _typical,
)
