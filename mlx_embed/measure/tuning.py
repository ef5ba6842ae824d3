"""`mlx-embed tune`: every way to compute each op, timed on this machine at the shapes of common encoders."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import isfinite
from typing import Any

import mlx.core as mx

from custom_kernels import tune
from custom_kernels.activation import ACTIVATE
from custom_kernels.activation import Variant as Activation
from custom_kernels.attention import ATTENTION, LENGTHS, SIZES
from custom_kernels.attention import Variant as Attention
from custom_kernels.backends import Load, Op, default_backend
from custom_kernels.embedding import EMBEDDING_NORM
from custom_kernels.embedding import Variant as Embedding
from custom_kernels.layer_norm import LAYER_NORM
from custom_kernels.layer_norm import Variant as Norm
from custom_kernels.linear import LINEAR, OUTPUT_NORM, LinearVariant, OutputNormVariant
from custom_kernels.packed import POSITION_IDS
from custom_kernels.pool import MEAN_POOL
from custom_kernels.pool import Variant as Pool
from custom_kernels.rope import ROPE
from custom_kernels.rope import Variant as Rope
from mlx_embed.engine.device import prepare_accelerator

DTYPES = (mx.float16, mx.float32)
# Hidden size and head size: MiniLM, e5-small and bge-small; BERT-base and MPNet.
ENCODERS = ((384, 32), (768, 64))
BUDGET = 0.2  # seconds a row, beside what compiles


@dataclass(frozen=True)
class Row:
    """What was measured of an op at a class of shapes.

    Attributes:
        op: its name.
        shapes: the class.
        seconds: by candidate, infinite where one does not run here.
        winner: the candidate to take.
    """

    op: str
    shapes: str
    seconds: dict[str, float]
    winner: str

    def __str__(self) -> str:
        times = ", ".join(
            f"{name} {1e6 * seconds:,.0f} us" if isfinite(seconds) else f"{name} does not run"
            for name, seconds in self.seconds.items()
        )
        return f"{self.op:<14}  {self.shapes:<62}  {self.winner:<28}  ({times})"


def classes() -> Iterator[tuple[Op, Any, Load]]:
    """Each op with the variants and loads of common encoders."""
    for many in (False, True):
        yield POSITION_IDS, "int32", Load(many)
    for (width, head_dim), dtype, many in product(ENCODERS, DTYPES, (False, True)):
        load = Load(many)
        for residual in (None, dtype):
            yield LAYER_NORM, Norm(width, 1e-12, dtype, dtype, dtype, residual), load
        for tables in (2, 3):
            yield EMBEDDING_NORM, Embedding(width, tables, 1e-12, dtype, dtype, dtype), load
        yield MEAN_POOL, Pool(width, dtype, 0, False), load
        yield ACTIVATE, Activation(4 * width, dtype, "gelu", None), load
        yield ROPE, Rope(dtype, width // head_dim, head_dim // 2), load
        if dtype == mx.float16 and default_backend() == "cuda":
            for outputs, act in ((3 * width, None), (4 * width, "gelu")):
                yield LINEAR, LinearVariant(dtype, outputs, width, act, True), load
            yield OUTPUT_NORM, OutputNormVariant(dtype, width, width, 1e-12), load
        for longest in LENGTHS:
            size = longest if longest in SIZES else None
            plain = Attention(dtype, head_dim, head_dim**-0.5, None, size, None)
            yield ATTENTION, plain, Load(many, longest)
            if many:  # few tokens make no full block, since batches are filled up to a size
                yield ATTENTION, plain, Load(many, longest, equal=True)
            if head_dim == 64:
                yield ATTENTION, plain._replace(bias=dtype), Load(many, longest)


def measured(op: Op, variant: Any, load: Load) -> Row:
    """Time one class on the GPU, for use on the worker thread; on Metal remember it, for the choice of kernels.

    On CUDA nothing is remembered: what runs there is what was measured fastest on an H100.

    Raises:
        ValueError: there is no GPU.
    """
    prepare_accelerator()
    with mx.stream(mx.Device(mx.gpu)):
        backend = default_backend()
        if backend is None:
            raise ValueError("There is no GPU here, and so nothing to tune.")
        candidates = op.candidates(backend, variant)
        seconds = tune.measure(op.name, op.runs(candidates, variant, load), budget=BUDGET)
        if backend == "metal":
            tune.remember(op.name, f"{variant}, {load}", seconds)
        return Row(op.name, f"{variant}, {load}", seconds, tune.fastest(op.name, seconds))
