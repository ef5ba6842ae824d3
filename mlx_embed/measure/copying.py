"""How long this machine takes to copy bytes: what an op cannot beat that has to read and to write as many."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from custom_kernels import cpu
from custom_kernels.parameters import Linear
from mlx_embed.measure.timing import Plan, Work, interleaved

# Ops that read only some rows of a table: how many of their arguments, from the first on, they read whole.
TABLES = {"embedding_norm": 0, "gather_mean": 0, "rope": 2}
PLAN = Plan(rounds=2, turn=0.01, pause=0.0, seconds=0.1)
GPU_CHAIN = 20
# A thread that copies less than this takes longer to be woken than to copy.
LEAST_PART = 2**19


def least_bytes(op: str, arguments: Any, result_bytes: int) -> int | None:
    """What an op has to read and to write, each byte once; None of one that reads rows of a table alone."""
    whole = list(arguments)[: TABLES.get(op, len(arguments))]
    if op in TABLES and not whole:
        return None
    return sum(map(_bytes, whole)) + result_bytes


def copy_seconds(moved: int, *, on_gpu: bool) -> float:
    """Seconds of a copy that reads and writes so many bytes together, in the same place, again and again.

    On the CPU by numpy, on one core or on all, whichever is quicker; on a GPU one of a chain of launches.
    """
    count = max(moved // 8, 1)
    if on_gpu:
        with mx.stream(mx.gpu):
            given = mx.zeros((count,), dtype=mx.float32) + mx.array(1.0)
            mx.eval(given)
            found = interleaved({"": partial(_chain, given)}, prepared=True, plan=PLAN)
        return found[""].seconds / GPU_CHAIN
    source, target = np.ones(count, dtype=np.float32), np.zeros(count, dtype=np.float32)
    works: dict[str, Work] = {"one core": partial(np.copyto, target, source)}
    threads = min(cpu.usable_cores(), source.nbytes // LEAST_PART)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        if threads > 1:
            parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
            works["all cores"] = lambda: list(pool.map(lambda part: np.copyto(*part), parts))
        return min(timing.seconds for timing in interleaved(works, plan=PLAN).values())


def _chain(given: mx.array) -> Work:
    copies = [given + mx.array(0.0) for _ in range(GPU_CHAIN)]
    return lambda: mx.eval(copies)


def _bytes(argument: Any) -> int:
    if isinstance(argument, Linear):
        return _bytes(argument.weight) + _bytes(argument.bias)  # and not the same weight laid out for a kernel
    if isinstance(argument, (list, tuple)):
        return sum(map(_bytes, argument))
    return int(getattr(argument, "nbytes", 0))
