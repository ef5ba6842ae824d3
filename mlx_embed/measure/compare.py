"""The comparison run: accelerator and native kernels against MLX's CPU stream, batching, each op, and launches.

Every figure is measured by the run that shows it. Both sides of a row are timed in turn, round by round, after
warm-up rounds that are not counted; medians are reported.
"""

import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from platform import platform
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from custom_kernels import cpu, layer_norm, twins
from custom_kernels.choice.op import Load, Op
from custom_kernels.ops import OPS
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.engine.device import accelerator, describe, resolve_device
from mlx_embed.engine.graph import GraphEngine
from mlx_embed.engine.worker import worker
from mlx_embed.measure.launches import count_launches

logger = logging.getLogger("mlx_embed")

DEFAULT_TEXTS = (
    "How do I reset my password?",
    "The quick brown fox jumps over the lazy dog.",
    "Machine learning on a laptop no longer needs a data centre.",
    "Where can I find last year's tax forms?",
    "A recipe for lentil soup with cumin and lemon.",
    "The train to the coast leaves at half past seven.",
    "def mean(values): return sum(values) / len(values)",
    "Photosynthesis turns light, water and carbon dioxide into sugar.",
    "What is the boiling point of water at high altitude?",
    "The museum is closed on Mondays and public holidays.",
    "Her grandmother kept bees behind the orchard wall.",
    "SELECT name FROM users WHERE active ORDER BY created",
    "Interest rates were left unchanged for the third month.",
    "Is it safe to run while recovering from a cold?",
    "An index of documents should cost what its tokens cost.",
    "The violin's varnish matters less than its wood.",
    "Symptoms of iron deficiency include fatigue and pale skin.",
    "He repaired the bicycle with a spoon and some wire.",
    "Convolution layers share their weights across positions.",
    "The contract ends thirty days after written notice.",
)
BATCH_SIZES = (1, 3, 10, 50, 100)
NORM_SHAPES = ((3, 384), (128, 384), (8, 128, 384), (4096, 768))
# On how many tokens, and of what texts, each op is compared.
LOADS = (Load(False, 128), Load(True, 128))

# Rows stop early once they have taken this long; MLX's Linux CPU build can take minutes for what others do at once.
WARMUP, MAX_ROUNDS, SECONDS_A_ROW = 1, 30, 2.0

# The side that the others are compared with: MLX's CPU stream, float32, plain graph.
BASE = "mlx cpu"

# What the vectors of a computation must reach against the CPU's in float32.
LEAST_COSINE = {"float32": 0.999999, "float16": 0.9999, "bfloat16": 0.999}
MAX_DIFFERENCE_FLOAT32 = 1e-5
MAX_OP_ERROR_FLOAT32 = 1e-4


@dataclass
class Report:
    """The results of a run, as JSON values.

    Attributes:
        model: what was run, on which devices, with which versions.
        agreement: a row for each other side: its vectors against those of MLX's CPU stream.
        latency: a row for each batch size and side: medians in milliseconds, and texts a second.
        batching: the same texts one by one and as one batch, a row for each side.
        layer_norm: a row for each shape and implementation.
        kernels: a row for each fused op, load and implementation.
        graph: primitives in the graph of one forward pass.
        launches: on CUDA, kernel launches of one forward pass, with this package's kernels and without.
        failures: sentences; empty where all is correct.
    """

    model: dict[str, Any]
    agreement: list[dict[str, Any]] = field(default_factory=list)
    latency: list[dict[str, Any]] = field(default_factory=list)
    batching: list[dict[str, Any]] = field(default_factory=list)
    layer_norm: list[dict[str, Any]] = field(default_factory=list)
    kernels: list[dict[str, Any]] = field(default_factory=list)
    graph: dict[str, Any] = field(default_factory=dict)
    launches: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def compare(
    model: str | Path,
    texts: Sequence[str] = DEFAULT_TEXTS,
    dtype: str | None = None,
) -> Report:
    """Run the comparison.

    Args:
        model: anything `EmbeddingModel.from_pretrained` takes.
        texts: repeated in turn where a batch needs more.
        dtype: of the accelerator side; the CPU side is always float32.

    Raises:
        ValueError: no texts, or an unknown dtype.
        MLXEmbedError: the model cannot be loaded.
    """
    if not texts:
        raise ValueError("compare needs at least one text.")
    logger.info("loading the model")
    sides = _sides(model, dtype)
    base = sides[BASE]
    devices = ["cpu"] if accelerator() is None else ["cpu", "gpu"]
    report = Report(
        {
            "name": base.name,
            "dimension": base.dimension,
            "sides": {name: str(side.dtype).removeprefix("mlx.core.") for name, side in sides.items()},
            "accelerator": accelerator(),
            "native kernels": cpu.instruction_set() if cpu.available() else cpu.why_unavailable(),
            "devices": [describe(resolve_device(device)) for device in devices],
            "platform": platform(),
            "mlx": version("mlx"),
            "texts": len(texts),
            "warmup": WARMUP,
        }
    )
    logger.info("comparing the vectors")
    _agreement(report, sides, texts)
    for size in BATCH_SIZES:
        logger.info(f"timing batches of {size}")
        batch = list(islice(cycle(texts), size))
        seconds = _interleaved({name: partial(_batched, side, batch) for name, side in sides.items()})
        report.latency += [
            {"texts": size, "side": name, "ms": 1e3 * t, "texts/s": size / t, "speed-up": seconds[BASE] / t}
            for name, t in seconds.items()
        ]
    for size in (3, 10):
        logger.info(f"timing {size} texts one by one against batched")
        batch = list(islice(cycle(texts), size))
        for name, side in sides.items():
            seconds = _interleaved(
                {"one by one": partial(_one_by_one, side, batch), "batched": partial(_batched, side, batch)}
            )
            report.batching.append(
                {"texts": size, "side": name}
                | {f"{way} ms": 1e3 * t for way, t in seconds.items()}
                | {"batching gains": seconds["one by one"] / seconds["batched"]}
            )
    logger.info("measuring LayerNorm")
    for shape in NORM_SHAPES:
        report.layer_norm += worker.run(partial(_norm_rows, shape))
    for op in OPS:
        for variant, load in _shapes(op):
            logger.info(f"measuring {op.name}, {load}")
            report.kernels += worker.run(partial(_kernel_rows, op, variant, load))
    _check_ops(report)
    logger.info("counting graph primitives")
    few = list(islice(cycle(texts), 3))
    report.graph = {"texts": len(few)} | {
        name: primitives(side, few) for name, side in sides.items() if isinstance(side.engine, GraphEngine)
    }
    if accelerator() == "cuda":
        logger.info("counting kernel launches")
        for name, switched_on in (("this package's", True), ("MLX's own ops", False)):
            found = count_launches(base.checkpoint.folder, sides["cuda"].dtype, few, kernels=switched_on)
            report.launches.append({"kernels": name, "launches": found.total(), "of": dict(found.most_common())})
    return report


def _sides(model: str | Path, dtype: str | None) -> dict[str, EmbeddingModel]:
    """What is compared: MLX's CPU stream, the native kernels, and the accelerator or else a compiled graph."""
    sides = {BASE: EmbeddingModel.from_pretrained(model, device="cpu", engine="reference")}
    if cpu.available() and sides[BASE].engine.name != "padded":
        sides["native cpu"] = EmbeddingModel.from_pretrained(model, device="cpu", engine="native")
    if here := accelerator():
        sides[here] = EmbeddingModel.from_pretrained(model, device="gpu", dtype=dtype)
    else:
        sides["mlx cpu, compiled"] = EmbeddingModel.from_pretrained(model, device="cpu", dtype=dtype, engine="graph")
    return sides


def format_report(report: Report) -> str:
    """The report as text for a person."""
    about = report.model
    lines = [
        f"Model      {about['name']}, {about['dimension']} dimensions",
        f"Devices    {'; '.join(about['devices'])}",
        f"Software   mlx {about['mlx']}, {about['platform']}",
        f"Native     {about['native kernels']}",
        f"Sides      {', '.join(f'{name} ({dtype})' for name, dtype in about['sides'].items())}",
    ]
    if about["accelerator"] is None:
        lines.append("           No accelerator here: the compiled graph is compared with the plain one instead.")
    lines += [
        "",
        f"Vectors against {BASE}",
        _table(row | {"min cosine": f"{row['min cosine']:.7f}"} for row in report.agreement),
        "",
        f"Latency of encode, strings to numpy vectors (medians after {about['warmup']} warm-up round)",
        _table(report.latency),
        "",
        "One by one against one batch",
        _table(report.batching),
        "",
        "LayerNorm, float32 (GB/s counts one read and one write)",
        _table(report.layer_norm),
        "",
        f"Fused ops, float32 (few tokens are {Load(False).tokens}, many are {Load(True).tokens})",
        _table(report.kernels),
        "",
        "Primitives in the graph of one forward pass (a fused group counts as one; views count, and are no launches)",
        _table([report.graph]),
        "",
        *_launch_lines(report),
        *(f"FAILED: {failure}" for failure in report.failures),
    ]
    return "\n".join(lines if report.failures else [*lines, "All vectors agree."])


def _launch_lines(report: Report) -> list[str]:
    if not report.launches:
        return ["Kernel launches: not counted, which needs CUDA; a CPU's graph is not that of a GPU.", ""]
    rows = [{name: row[name] for name in ("kernels", "launches")} for row in report.launches]
    return [f"Kernel launches of one forward pass on CUDA, {report.graph['texts']} texts", _table(rows), ""]


def to_json(report: Report) -> str:
    """The report as JSON text."""
    return json.dumps(asdict(report), indent=2)


def _agreement(report: Report, sides: dict[str, EmbeddingModel], texts: Sequence[str]) -> None:
    expected = sides[BASE].encode(texts, normalize_embeddings=True)
    for name, side in sides.items():
        if name == BASE:
            continue
        found = side.encode(texts, normalize_embeddings=True)
        difference, cosine = float(np.abs(expected - found).max()), float(_cosines(expected, found).min())
        report.agreement.append(
            {"side": name, "shape": list(found.shape), "max abs difference": difference, "min cosine": cosine}
        )
        dtype = report.model["sides"][name]
        if not cosine >= LEAST_COSINE[dtype]:
            report.failures.append(
                f"{name}: the lowest cosine is {cosine:.7f}, below {LEAST_COSINE[dtype]} for {dtype}"
            )
        if dtype == "float32" and not difference <= MAX_DIFFERENCE_FLOAT32:
            report.failures.append(f"{name}: vectors differ by {difference:.2e}, above {MAX_DIFFERENCE_FLOAT32}")


def _cosines(a: Any, b: Any) -> Any:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))


def _batched(model: EmbeddingModel, texts: list[str]) -> None:
    model.encode(texts)


def _one_by_one(model: EmbeddingModel, texts: list[str]) -> None:
    for text in texts:
        model.encode(text)


def _norm_rows(shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """LayerNorm of one shape by each implementation, on the worker thread."""
    rng = np.random.default_rng()
    values = rng.normal(size=shape).astype(np.float32)
    weight, bias = rng.normal(size=(2, shape[-1])).astype(np.float32)
    exact = values.astype(np.float64)
    exact -= exact.mean(axis=-1, keepdims=True)
    exact = exact / np.sqrt(np.square(exact).mean(axis=-1, keepdims=True) + 1e-12) * weight + bias
    here = accelerator()
    x, w, b = (mx.array(a) for a in (values, weight, bias))
    mx.eval(x, w, b)

    def on_mlx(backend: str | None, device: mx.Device, times: int) -> Any:
        with mx.stream(device):
            outs = [layer_norm(x, w, b, 1e-12, backend=backend) for _ in range(times)]
            mx.eval(outs)
        return outs[0]

    # On an accelerator a single call is mostly its synchronisation: time a run of calls, and divide.
    gpu, host, many = mx.Device(mx.gpu), mx.Device(mx.cpu), 50
    sides: dict[str, tuple[Callable[[], Any], int]] = {}
    if here is not None:
        sides[f"custom, {here}"] = partial(on_mlx, here, gpu, many), many
        sides[f"mx.fast, {here}"] = partial(on_mlx, "fast", gpu, many), many
    sides["mx.fast, CPU stream"] = partial(on_mlx, "fast", host, 1), 1
    sides["reference, CPU stream"] = partial(on_mlx, "reference", host, 1), 1
    if cpu.available():
        sides["native cpu"] = partial(cpu.layer_norm, values, weight, bias, 1e-12), 1
    seconds = _interleaved({name: run for name, (run, _) in sides.items()})
    rows: list[dict[str, Any]] = []
    for name, (run, times) in sides.items():
        rows.append(
            {
                "shape": list(shape),
                "implementation": name,
                "us": 1e6 * seconds[name] / times,
                "GB/s": 2 * values.nbytes * times / seconds[name] / 1e9,
                "max error": float(np.abs(np.array(run()) - exact).max()),
            }
        )
    if here is None:
        skipped = "custom: not run, MLX finds no Metal or CUDA device here"
        rows.insert(0, {"shape": list(shape), "implementation": skipped})
    return rows


def _shapes(op: Op) -> list[tuple[Any, Load]]:
    """The first float32 variant that is typical of each of the LOADS: that of small encoders. Some ops have none."""
    typical = [(variant, load) for variant, load in op.typical(accelerator()) if "float16" not in str(variant)]
    return [
        next((variant, load) for variant, load in typical if load in (wanted, Load(wanted.many)))
        for wanted in LOADS
        if typical
    ]


def _kernel_rows(op: Op, variant: Any, load: Load) -> list[dict[str, Any]]:
    """One op by each implementation, on the worker thread."""
    here, host, many = accelerator(), mx.Device(mx.cpu), 20
    with mx.stream(host):
        sample, options = op.sample(variant, load)
        mx.eval(list(sample))
        arrays = tree_map(lambda x: np.array(x) if isinstance(x, mx.array) else x, sample)

    def on_mlx(way: Callable[..., mx.array], arguments: Any, device: mx.Device, times: int) -> Any:
        with mx.stream(device):
            outs = [way(*arguments, **options) for _ in range(times)]
            mx.eval(outs)
        return outs[0]

    sides: dict[str, tuple[Callable[[], Any], int]] = {}
    if here is not None:
        gpu = mx.Device(mx.gpu)
        with mx.stream(gpu):
            moved = tree_map(lambda x: mx.array(x) if isinstance(x, np.ndarray) else x, arrays)
            for name, way in op.candidates(here, variant).items():
                compiled = mx.compile(partial(way, **options))
                label = f"{'custom' if name == 'kernel' else name}, {here}"
                sides[label] = partial(on_mlx, compiled, moved, gpu, many), many
    sides["reference, CPU stream"] = partial(on_mlx, op.reference, sample, host, 1), 1
    native = twins.native(op)
    if cpu.available() and native is not None:
        sides["native cpu"] = partial(native, *twins.as_native(sample), **options), 1
    # Before the clock runs: the native rope works in place.
    found = {name: np.array(run()) for name, (run, _) in sides.items()}
    seconds = _interleaved({name: run for name, (run, _) in sides.items()})
    expected = found["reference, CPU stream"]
    return [
        {
            "op": op.name,
            "input": f"{variant}, {load}",
            "implementation": name,
            "us": 1e6 * seconds[name] / times,
            "max difference": float(np.abs(found[name] - expected).max()),
        }
        for name, (_, times) in sides.items()
    ]


def _check_ops(report: Report) -> None:
    for row in report.layer_norm:
        if "max error" in row and not row["max error"] <= MAX_OP_ERROR_FLOAT32:
            report.failures.append(
                f"LayerNorm {row['shape']} by {row['implementation']} is {row['max error']:.2e} off float64"
            )
    for row in report.kernels:
        if not row["max difference"] <= MAX_OP_ERROR_FLOAT32:
            report.failures.append(
                f"{row['op']} of {row['input']} by {row['implementation']} is {row['max difference']:.2e} "
                "off MLX's ops on the CPU"
            )


def primitives(model: EmbeddingModel, texts: list[str]) -> int:
    """The number of primitives in the graph of one forward pass over `texts`, as one batch."""
    engine: Any = model.engine
    batch = next(engine.batches(model.tokenizer(texts).ids, 2**30))

    def count() -> int:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "graph.dot"
            mx.export_to_dot(str(path), engine.rows(batch, model.head()))
            return path.read_text().count("shape=rectangle")

    return worker.run(count, model.device)


def _interleaved(sides: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each side; every round runs all of them once, in turn."""
    for work in sides.values():
        for _ in range(WARMUP):
            work()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    began = time.perf_counter()
    for done in range(MAX_ROUNDS):
        if done and time.perf_counter() - began > SECONDS_A_ROW:
            break
        for name, work in sides.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _table(rows: Iterable[dict[str, Any]]) -> str:
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    return "\n".join("  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2e}" if 0 < abs(value) < 0.01 else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)
