"""The comparison run: MLX's CPU stream, the native kernels and the accelerator, as a person would use them.

Every figure is measured by the run that shows it; see `report` for what they are, and `timing` for how.
"""

import logging
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from platform import platform
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from custom_kernels import cpu
from custom_kernels.arrays import spelled
from custom_kernels.cpu import blas
from custom_kernels.ops import OPS
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.engine import Engine
from mlx_embed.engine.device import accelerator, describe
from mlx_embed.engine.graph import GraphEngine
from mlx_embed.engine.native import NativeEngine
from mlx_embed.engine.worker import worker
from mlx_embed.measure import kernels
from mlx_embed.measure.launches import count_launches
from mlx_embed.measure.report import (
    BASE,
    COMPILED,
    NATIVE,
    Agreement,
    Batching,
    Filling,
    Latency,
    Launches,
    OpRow,
    Report,
    Side,
    Subject,
)
from mlx_embed.measure.timing import Work, interleaved

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
BATCHED = (3, 10)
# The texts of the forward pass whose primitives and launches are counted.
FEW = 3
# A side that has taken so many seconds for a batch is slow, and gets no larger one; but the base does, without a
# warm-up, until it has taken the second number of seconds.
SLOW, HOPELESS = 1.0, 2.0
# Seconds into the run after which no further row of these tables is begun, so that the whole ends within a minute.
BATCHING_UNTIL, OPS_UNTIL = 42.0, 48.0
# Seconds for counting launches, in which MLX may compile all of its own ops.
COUNTING = 30.0
# What launches are counted with: whether with this package's kernels.
LAUNCHING = {"this package's": True, "MLX's own ops": False}

Sides = dict[str, EmbeddingModel]
Vectors = npt.NDArray[np.float32]


def compare(model: str | Path, texts: Sequence[str] = DEFAULT_TEXTS, dtype: str | None = None) -> Report:
    """Run the comparison, in about a minute; each step is logged at INFO.

    Args:
        model: anything `EmbeddingModel.from_pretrained` takes.
        texts: repeated in turn where a batch needs more.
        dtype: of the accelerator's side; those of the CPU compute in float32.

    Raises:
        ValueError: no texts, or an unknown dtype.
        MLXEmbedError: the model cannot be loaded.
    """
    if not texts:
        raise ValueError("compare needs at least one text.")
    began, busy = time.perf_counter(), os.getloadavg()[0]
    logger.info("loading the model")
    sides = load(model, dtype)
    few = repeated(texts, FEW)
    with ThreadPoolExecutor() as pool:
        # Nothing is timed yet: meanwhile all compiles what it needs.
        counting = pool.submit(launches, sides, few)
        logger.info("comparing the vectors")
        agreement = tuple(agreements(sides, texts))
        logger.info("compiling")
        make_ready(sides, texts)
        logger.info("counting graph primitives and kernel launches")
        counts, uncounted = counting.result()
    latency, left_out = latencies(sides, texts)
    seconds = {(row.texts, row.side): row.time.seconds for row in latency}
    batching, late_batches = batchings(sides, texts, seconds, began + BATCHING_UNTIL)
    norms, ops, late_ops = op_tables(began + OPS_UNTIL)
    packed = COMPILED in sides and sides[COMPILED].engine.name == "graph"
    filled = filling(sides[COMPILED], repeated(texts, 10)) if packed else None
    return Report(
        subject=subject(sides, texts, busy),
        agreement=agreement,
        latency=tuple(latency),
        batching=tuple(batching),
        layer_norm=tuple(norms),
        ops=tuple(ops),
        primitives={n: primitives(s, few) for n, s in sides.items() if isinstance(s.engine, GraphEngine)},
        few=FEW,
        filling=filled,
        launches=tuple(counts),
        left_out=(*left_out, *late_batches, *late_ops, *uncounted),
        seconds=time.perf_counter() - began,
    )


def load(model: str | Path, dtype: str | None) -> Sides:
    """The sides by name, the base first: each is computed differently."""
    sides = {BASE: EmbeddingModel.from_pretrained(model, device="cpu", engine="reference")}
    if cpu.available():
        sides[NATIVE] = EmbeddingModel.from_pretrained(model, device="cpu", dtype="float32", engine="native")
        for narrow in ("bfloat16", "int8"):
            if cpu.product(narrow):
                side = f"{NATIVE}, {narrow}"
                sides[side] = EmbeddingModel.from_pretrained(model, device="cpu", dtype=narrow, engine="native")
    if here := accelerator():
        sides[here] = EmbeddingModel.from_pretrained(model, device="gpu", dtype=dtype)
    else:
        sides[COMPILED] = EmbeddingModel.from_pretrained(model, device="cpu", dtype=dtype, engine="graph")
    return sides


def subject(sides: Sides, texts: Sequence[str], load: float) -> Subject:
    """What is compared; `load` is the machine's, before the run."""
    base = sides[BASE]
    tokens = [int(n) for n in base.token_counts(list(texts))]
    return Subject(
        model=base.name,
        dimension=base.dimension,
        texts=len(texts),
        tokens=(min(tokens), statistics.fmean(tokens), max(tokens)),
        sides=tuple(
            Side(name, _engine(side.engine), describe(side.device), spelled(side.dtype), _threads(name))
            for name, side in sides.items()
        ),
        accelerator=accelerator(),
        native=cpu.instruction_set() if cpu.available() else cpu.why_unavailable(),
        platform=platform(),
        mlx=version("mlx"),
        cores=cpu.usable_cores(),
        load=load,
    )


def _engine(engine: Engine) -> str:
    """Its name, and how many layers int8 leaves to bfloat16."""
    if isinstance(engine, NativeEngine) and engine.kept:
        return f"{engine.name}, {len(engine.kept)} of {len(engine.layers)} layers in bfloat16"
    return engine.name


def agreements(sides: Sides, texts: Sequence[str]) -> Iterator[Agreement]:
    """The unit vectors of each side against the base's."""
    expected = _encode(sides[BASE], list(texts), unit=True)
    for name, side in sides.items():
        if name != BASE:
            found = _encode(side, list(texts), unit=True)
            difference, cosine = float(np.abs(expected - found).max()), float(_cosines(expected, found).min())
            yield Agreement(name, spelled(side.dtype), difference, cosine)


def make_ready(sides: Sides, texts: Sequence[str]) -> None:
    """Let sides do what they do once: compare tokenizers, and on an accelerator compile for every batch to be timed."""
    for side in sides.values():
        if side.tokenizer.fast is not None:
            side.tokenizer.fast.prepare()
    if (here := accelerator()) in sides:
        for size in BATCH_SIZES:
            _encode(sides[here], repeated(texts, size))
        _encode_each(sides[here], repeated(texts, max(BATCHED)))


def latencies(sides: Sides, texts: Sequence[str]) -> tuple[list[Latency], list[str]]:
    """Each batch size on each side; and what of that is left out, since it would take too long."""
    rows: list[Latency] = []
    left_out: list[str] = []
    timed, last = dict(sides), dict.fromkeys(sides, 0.0)
    for done, size in zip((0, *BATCH_SIZES), BATCH_SIZES, strict=False):
        for name in [name for name in timed if last[name] > (HOPELESS if name == BASE else SLOW)]:
            left_out.append(f"batches of {size} texts and more on {name}: {done} took {last[name]:.1f} s")
            del timed[name]
        logger.info("timing batches of %d", size)
        batch = repeated(texts, size)
        cold = {BASE} if last[BASE] > SLOW else ()
        times = interleaved({name: partial(_encode, side, batch) for name, side in timed.items()}, cold=cold)
        base = times.get(BASE)
        for name, found in times.items():
            rows.append(Latency(size, name, found, None if base is None else base.seconds / found.seconds))
            last[name] = found.seconds
    return rows, left_out


def batchings(
    sides: Sides, texts: Sequence[str], seconds: Mapping[tuple[int, str], float], until: float
) -> tuple[list[Batching], list[str]]:
    """The same texts one by one and as one batch, on each side; and what is left out, since it would take too long.

    `seconds` are those of a batch, as found before, by number of texts and side; at `until`, by the clock, it ends.
    """
    rows: list[Batching] = []
    left_out: list[str] = []
    for size in BATCHED:
        logger.info("timing %d texts one by one against batched", size)
        batch = repeated(texts, size)
        for name, side in sides.items():
            if seconds.get((size, name), 0.0) > SLOW:
                left_out.append(f"{size} texts one by one on {name}: in a batch they took {seconds[size, name]:.1f} s")
                continue
            if time.perf_counter() > until:
                left_out.append(f"{size} texts one by one on {name}: the run had taken {BATCHING_UNTIL:.0f} s before")
                continue
            works: dict[str, Work] = {
                "one by one": partial(_encode_each, side, batch),
                "batched": partial(_encode, side, batch),
            }
            times = interleaved(works)
            rows.append(Batching(size, name, times["one by one"], times["batched"]))
    return rows, left_out


def op_tables(until: float) -> tuple[list[OpRow], list[OpRow], list[str]]:
    """LayerNorm's rows, those of all ops, and what was left out since the clock had reached `until`."""
    norms: list[OpRow] = []
    ops: list[OpRow] = []
    late: list[str] = []
    for shape in kernels.NORM_SHAPES:
        logger.info("measuring LayerNorm of %s", list(shape))
        norms += worker.run(partial(kernels.norm_rows, shape))
    for op in OPS:
        for variant, given in kernels.shapes(op):
            if time.perf_counter() > until:
                late.append(op.name)
                continue
            logger.info("measuring %s, %s", op.name, given)
            rows, whole = worker.run(partial(kernels.op_rows, op, variant, given, until))
            ops += rows
            if not whole:
                late.append(op.name)
    names = ", ".join(dict.fromkeys(late))
    reason = f"the run had taken {OPS_UNTIL:.0f} s before"
    return norms, ops, [f"all or some ways to compute {names} on {len(late)} inputs: {reason}"] if late else []


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


def filling(model: EmbeddingModel, texts: list[str]) -> Filling:
    """What a compiled graph computes beyond what the texts need."""
    ids = model.tokenizer(texts).ids
    lengths = ids.lengths.tolist()
    shapes = [batch.shape for batch in model.engine.batches(ids, model.engine.budget(None))]
    return Filling(
        texts=len(texts),
        tokens=sum(lengths),
        computed=sum(tokens for tokens, _, _ in shapes),
        block=len(texts) * max(lengths),
        computed_block=sum(sequences * longest for _, sequences, longest in shapes),
    )


def launches(sides: Sides, texts: list[str]) -> tuple[list[Launches], list[str]]:
    """Kernel launches of one forward pass on CUDA, if that is here; or why they could not be counted."""
    if "cuda" not in sides:
        return [], []
    side = sides["cuda"]
    count = partial(count_launches, side.checkpoint.folder, side.dtype, texts, timeout=COUNTING)
    with ThreadPoolExecutor() as pool:
        counting = {name: pool.submit(count, kernels=wanted) for name, wanted in LAUNCHING.items()}
    try:
        found = {name: future.result() for name, future in counting.items()}
    except RuntimeError as error:
        return [], [f"kernel launches: {str(error).rstrip('.')}"]
    return [Launches(name, counts.total(), dict(counts.most_common())) for name, counts in found.items()], []


def repeated(texts: Sequence[str], size: int) -> list[str]:
    """So many texts: those given, again and again."""
    return list(islice(cycle(texts), size))


def _encode(model: EmbeddingModel, texts: list[str], unit: bool | None = None) -> Vectors:
    return model.encode(texts, normalize_embeddings=unit, show_progress_bar=False)


def _encode_each(model: EmbeddingModel, texts: list[str]) -> None:
    for text in texts:
        _encode(model, [text])


def _cosines(a: Any, b: Any) -> Any:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))


def _threads(side: str) -> str:
    if side.startswith(NATIVE):
        return str(cpu.num_threads())
    if side not in (BASE, COMPILED):
        return "-"
    return f"{blas.num_threads()} in products (OpenBLAS), 1 elsewhere" if blas.active() else "1, products by MLX's BLAS"
