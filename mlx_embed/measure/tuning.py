"""Every way to compute each op, timed on this machine at the shapes of common encoders."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any

import mlx.core as mx

from custom_kernels.backends import default_backend
from custom_kernels.choice import tune
from custom_kernels.choice.op import Load, Op
from custom_kernels.ops import OPS
from mlx_embed.engine.device import prepare_accelerator

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


def classes(backend: str) -> Iterator[tuple[Op, Any, Load]]:
    """Each op with the variants and loads of common encoders on "metal" or "cuda"."""
    for op in OPS:
        for variant, load in op.typical(backend):
            yield op, variant, load


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
        candidates = dict(op.candidates(backend, variant))
        runs = op.runs(candidates, variant, load)
        seconds = tune.measure(op.name, runs, repeats=tune.repeats(load.many), budget=BUDGET)
        if backend == "metal":
            tune.remember(op.name, f"{variant}, {load}", seconds)
        return Row(op.name, f"{variant}, {load}", seconds, tune.fastest(op.name, seconds))
