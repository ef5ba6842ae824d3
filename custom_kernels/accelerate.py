"""Accelerate, macOS's own BLAS, in the place of the native kernels' float32 products where it is faster.

Its `cblas_sgemm` has the matrix unit of Apple's processors, which NEON does not reach. Both are timed when they are
first needed on a machine, and what was faster is remembered: see `choice.tune`. No Mac has been measured.
"""

import ctypes
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from custom_kernels import cpu
from custom_kernels.choice import tune

LIBRARY = "/System/Library/Frameworks/Accelerate.framework/Accelerate"
# Rows, of a query and of a thread's share of a batch, and what they are multiplied with: MiniLM's widest layer.
ROWS, OUT_FEATURES, IN_FEATURES = (16, 512), 1536, 384


@cache
def decide() -> None:
    """Let float32 layers that are made from now on use what is faster here; the first call decides.

    Elsewhere than on macOS, and where MLX_EMBED_CPU_ISA limits the kernels, they keep their own products.
    """
    if sys.platform == "darwin" and not cpu.settings.instruction_set():
        try:
            sgemm = ctypes.CDLL(LIBRARY).cblas_sgemm
        except (OSError, AttributeError):
            return
        cpu.multiply_by(sgemm if is_faster(sgemm) else None)


def is_faster(sgemm: Any, file: Path | None = None, clock: Callable[[], float] = time.perf_counter) -> bool:
    """Whether this cblas_sgemm multiplies faster than the kernels on this machine; afterwards they multiply.

    Args:
        sgemm: a function of ctypes.
        file: where it is remembered; None for the user's cache folder.
        clock: seconds that pass.
    """
    numbers = np.random.default_rng(0)
    weight = numbers.standard_normal((OUT_FEATURES, IN_FEATURES), np.float32)
    inputs = [numbers.standard_normal((rows, IN_FEATURES), np.float32) for rows in ROWS]

    def by(function: Any | None) -> tune.Run:
        cpu.multiply_by(function)
        layer = cpu.Linear(weight)

        def run(before: mx.array | None) -> mx.array:
            for x in inputs:
                cpu.linear(x, layer)
            return mx.array(0)

        return run

    candidates = {"sgemm": by(sgemm), "kernels": by(None)}
    shape_class = f"float32 {OUT_FEATURES}x{IN_FEATURES}, {cpu.num_threads()} threads"
    ways = {name: candidates[name] for name in ("kernels", "sgemm")}
    return tune.best("native products", shape_class, ways, file=file, clock=clock) == "sgemm"
