"""The tables of ops: each way to compute one, on arrays of its own on its own device, beside a result to trust."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten, tree_map

from custom_kernels import cpu, layer_norm, twins
from custom_kernels.arrays import as_float32, is_float, spelled
from custom_kernels.choice.op import Load, Op
from mlx_embed.engine.device import accelerator, prepare_accelerator
from mlx_embed.measure.copying import copy_seconds, least_bytes
from mlx_embed.measure.report import OpRow
from mlx_embed.measure.timing import Plan, Work, interleaved

NORM_SHAPES = ((3, 384), (128, 384), (8, 128, 384), (4096, 768))
EPS = 1e-12
# On how many tokens, and of what texts, each op is compared.
LOADS = FEW, MANY = Load(128, 128), Load(4096, 128)
# Launches that are waited for together, or fewer where their results would take more bytes than this.
CHAIN = 50
CHAIN_BYTES = 2**28
# There are many rows: less time for each. What runs on a GPU leaves no threads spinning here.
PLAN = Plan(rounds=3, turn=0.02, pause=0.08, seconds=0.3)
GPU_PLAN = replace(PLAN, pause=0.0)

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class Way:
    """A way to compute an op.

    Attributes:
        name: of the kernel or ops, and where they run.
        begin: begins one call: gives a lazy MLX array, or the result.
        inputs: the arrays it reads.
        launches: whether a GPU runs it, where one of a chain of launches tells more than a single call.
    """

    name: str
    begin: Callable[[], Any]
    inputs: Sequence[Any]
    launches: bool = False

    def result(self) -> Array:
        """What it gives."""
        found = self.begin()
        return np.array(as_float32(found) if isinstance(found, mx.array) else found)

    def call(self) -> None:
        """One call, until its result is there."""
        _wait(self.begin())

    def chain(self, launches: int) -> Callable[[], None]:
        """So many calls, ready to be evaluated together."""
        return partial(_wait, [self.begin() for _ in range(launches)])


def norm_rows(shape: tuple[int, ...]) -> list[OpRow]:
    """LayerNorm of float32 rows of one shape by each way, for use on the worker thread; numpy's float64 is right."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=shape).astype(np.float32)
    weight, bias = rng.normal(size=(2, shape[-1])).astype(np.float32)
    right = values.astype(np.float64)
    right -= right.mean(axis=-1, keepdims=True)
    right = right / np.sqrt(np.square(right).mean(axis=-1, keepdims=True) + EPS) * weight + bias

    def on_mlx(name: str, backend: str, device: Any, *, launches: bool = False) -> Way:
        with mx.stream(device):
            arrays = own([mx.array(values), mx.array(weight), mx.array(bias)])
        norm = partial(layer_norm, backend=backend)
        return Way(name, partial(_on, device, norm, (*arrays, EPS), {}), arrays, launches)

    ways = [on_mlx("mx.fast, cpu", "fast", mx.cpu), on_mlx("ops, cpu", "reference", mx.cpu)]
    if here := accelerator():
        prepare_accelerator()
        ways += [
            on_mlx(f"kernel, {here}", here, mx.gpu, launches=True),
            on_mlx(f"mx.fast, {here}", "fast", mx.gpu, launches=True),
        ]
    if cpu.available():
        ways.append(Way("native cpu", partial(cpu.layer_norm, values, weight, bias, EPS), [values, weight, bias]))
    errors = {way.name: float(np.abs(way.result() - right).max()) for way in ways}
    return _rows("layer_norm", str(list(shape)), ways, errors, values.nbytes, 2 * values.nbytes)


def shapes(op: Op) -> list[tuple[Any, Load]]:
    """The first variant that is typical of each of the LOADS: of small encoders, in float32 if that has a kernel."""
    typical = sorted(op.typical(accelerator()), key=lambda pair: "float32" not in str(pair[0]))
    fitting = ([pair for pair in typical if pair[1] in (load, Load(load.tokens))] for load in LOADS)
    return [pairs[0] for pairs in fitting if pairs]


def op_rows(op: Op, variant: Any, load: Load, until: float = math.inf) -> tuple[list[OpRow], bool]:
    """One op by each way, for use on the worker thread; MLX's ops on its CPU stream in float32 are right.

    No rows where there is only one way here. Beside them whether they are all: once the clock has reached `until` no
    further way on a GPU is begun, since MLX may compile for seconds before it runs.
    """
    with mx.stream(mx.cpu):
        given, options = op.sample(variant, load)
        given = own(tree_map(as_float32, given))
    ways = [Way("ops, cpu", partial(_on, mx.cpu, op.reference, given, options), _arrays(given))]
    native = twins.native(op)
    if cpu.available() and native is not None:
        ways.append(Way("native cpu", partial(native, *twins.as_native(given), **options), _arrays(given)))
    # Before the clock runs: a way may work in place.
    found = {way.name: way.result() for way in ways}
    whole = True
    if here := accelerator():
        prepare_accelerator()
        with mx.stream(mx.gpu):
            arguments, options = op.sample(variant, load)
            arguments = own(arguments)
            for name, function in op.candidates(here, variant):
                whole = time.perf_counter() < until
                if not whole:
                    break
                compiled = partial(_on, mx.gpu, mx.compile(partial(function, **options)), arguments, {})
                label = name if name == "kernel" else f"ops ({name})"
                way = Way(f"{label}, {here}", compiled, _arrays(arguments), launches=True)
                found[way.name] = way.result()
                ways.append(way)
    if len(ways) == 1:
        return [], whole
    right = found["ops, cpu"]
    errors = {name: float(np.abs(result - right).max() / np.abs(right).max()) for name, result in found.items()}
    moved = least_bytes(op.name, given, right.nbytes)
    return _rows(op.name, f"{variant}, {load}", ways, errors, right.nbytes, moved), whole


def own(arguments: Any) -> Any:
    """Copies of the arrays, written by the default device into its own memory.

    What came from the host, or was read there, may lie in memory that CUDA moves to and fro.
    """

    def copied(x: Any) -> Any:
        return x + mx.zeros((), dtype=x.dtype) if isinstance(x, mx.array) else x

    copies = tree_map(copied, arguments)
    # While the originals are held, MLX cannot make their memory that of the copies.
    mx.eval(_arrays(copies))
    return copies


def _rows(
    op: str, text: str, ways: list[Way], errors: dict[str, float], result_bytes: int, moved: int | None = None
) -> list[OpRow]:
    """`moved` are the bytes to read and to write, of float32."""
    launches = max(4, min(CHAIN, CHAIN_BYTES // result_bytes))
    calls: dict[str, Work] = {way.name: way.call for way in ways}
    chains: dict[str, Work] = {way.name: partial(way.chain, launches) for way in ways if way.launches}
    # All have run, and compiled what they need.
    times = interleaved(calls, cold=calls, plan=PLAN)
    chained = interleaved(chains, cold=chains, prepared=True, plan=GPU_PLAN)
    rows = []
    limits: dict[tuple[int, bool], float] = {}
    for way in ways:
        dtype = _dtype(way.inputs)
        chain = chained[way.name].divided(launches) if way.launches else None
        row = OpRow(op, text, way.name, dtype, times[way.name], chain, errors[way.name])
        if moved is not None:
            # Nearly all of it are floats, which a GPU's way may have in half as many bytes.
            size = moved if dtype == "float32" else moved // 2
            if (size, way.launches) not in limits:
                limits[size, way.launches] = copy_seconds(size, on_gpu=way.launches)
            row = replace(row, bytes=size, limit=limits[size, way.launches])
        rows.append(row)
    return rows


def _on(device: Any, function: Callable[..., mx.array], arguments: Any, options: dict[str, Any]) -> mx.array:
    with mx.stream(device):
        return function(*arguments, **options)


def _wait(found: Any) -> None:
    if not isinstance(found, np.ndarray):
        mx.eval(found)


def _arrays(arguments: Any) -> list[mx.array]:
    leaves: Any = tree_flatten(list(arguments))
    return [leaf for _, leaf in leaves if isinstance(leaf, mx.array)]


def _dtype(arrays: Sequence[Any]) -> str:
    """Of the first of them that has floats; ids have none."""
    return next((spelled(x.dtype) for x in arrays if is_float(x)), "float32")
