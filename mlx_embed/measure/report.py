"""What a comparison run has found, as typed rows; what of it is wrong; and the verdict."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from mlx_embed.measure.timing import Timing

# The side that the others are compared with: MLX's own ops on its CPU stream, in float32, as a plain graph.
BASE = "mlx cpu"
NATIVE = "native cpu"
COMPILED = "mlx cpu, compiled"

# What a side's vectors must reach against the base's.
LEAST_COSINE = {"float32": 0.999999, "float16": 0.9999, "bfloat16": 0.999, "int8": 0.99}
MAX_DIFFERENCE_FLOAT32 = 1e-5
# An op's largest error, LayerNorm's as it is, the others' as a share of the largest value that they should give.
MAX_NORM_ERROR = 1e-4
MAX_OP_ERROR = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}
# A side that is faster by less is not faster.
FASTER = 1.05
# Of the cores: with more of them at work before the run, its times are those of a fight for them.
BUSY = 0.5


@dataclass(frozen=True)
class Side:
    """One of the ways to compute that are compared.

    Attributes:
        name: in the rows.
        engine: what runs it, see `mlx_embed.engine`.
        device: as a person would name it.
        dtype: that it computes in.
        threads: how many compute, in words.
    """

    name: str
    engine: str
    device: str
    dtype: str
    threads: str


@dataclass(frozen=True)
class Subject:
    """What was run, and with what.

    Attributes:
        model: its name.
        dimension: of its vectors.
        texts: how many different ones there are.
        tokens: of a text, special ones included: the least, the mean and the most.
        sides: what is compared, the base first.
        accelerator: "metal", "cuda" or None.
        native: the native kernels' instruction set, or why there are none.
        platform: the operating system.
        mlx: its version.
        cores: that this process may use.
        load: of the machine before the run, in cores: its average over a minute, or 0 where that is not known.
    """

    model: str
    dimension: int
    texts: int
    tokens: tuple[int, float, int]
    sides: tuple[Side, ...]
    accelerator: str | None
    native: str
    platform: str
    mlx: str
    cores: int
    load: float

    @property
    def busy(self) -> str:
        """A sentence that says that times are not to be trusted, or ""."""
        if self.load <= BUSY * self.cores:
            return ""
        return f"The machine was busy, with a load of {self.load:.1f} on {self.cores} cores, so times say little. "


@dataclass(frozen=True)
class Agreement:
    """A side's unit vectors against the base's: the largest difference of an element, and the lowest cosine."""

    side: str
    dtype: str
    max_difference: float
    min_cosine: float


@dataclass(frozen=True)
class Latency:
    """`encode` of so many texts in one call, strings to numpy vectors; and how often it fits into the base's time.

    That is None where the base was not timed.
    """

    texts: int
    side: str
    time: Timing
    speed_up: float | None


@dataclass(frozen=True)
class Batching:
    """`encode` of so many texts, one in each call or all in one."""

    texts: int
    side: str
    one_by_one: Timing
    batched: Timing

    @property
    def gain(self) -> float:
        """How often the batch fits into the time of the single calls."""
        return self.one_by_one.seconds / self.batched.seconds


@dataclass(frozen=True)
class OpRow:
    """One way to compute an op.

    Attributes:
        op: its name.
        input: what it is computed on, in words.
        way: by what, and where.
        dtype: of the input.
        call: one call, until its result is there.
        chain: of a GPU, one of many launches that are waited for together, as in a model; None on a CPU.
        error: against what the report says of its table.
        bytes: of the input and of the result, which have to be read and written; None where only some of it is read.
        limit: seconds in which the same device copies so many bytes from one place to another; None likewise.
    """

    op: str
    input: str
    way: str
    dtype: str
    call: Timing
    chain: Timing | None
    error: float
    bytes: int | None = None
    limit: float | None = None

    @property
    def gigabytes_per_second(self) -> float | None:
        """What is read and written, over the time of one launch."""
        return None if self.bytes is None else self.bytes / (self.chain or self.call).seconds / 1e9


@dataclass(frozen=True)
class Filling:
    """What a compiled graph computes for so many texts, beside what they need.

    Attributes:
        texts: how many.
        tokens: that they have.
        computed: that the graph's shape has.
        block: places of attention's block, the longest text times the number of texts.
        computed_block: of the graph's.
    """

    texts: int
    tokens: int
    computed: int
    block: int
    computed_block: int


@dataclass(frozen=True)
class Launches:
    """Kernel launches of one forward pass on CUDA, by kernel, with this package's kernels or without."""

    kernels: str
    launches: int
    of: dict[str, int]


@dataclass(frozen=True)
class Report:
    """The results of a run.

    Attributes:
        subject: what was run.
        agreement: a row for each side but the base.
        latency: a row for each number of texts and side.
        batching: likewise, for a few numbers.
        layer_norm: LayerNorm by each way to compute it; errors are against numpy in float64.
        ops: the other ops; errors are against MLX's own ops on its CPU stream in float32.
        primitives: of the graph of one forward pass over `few` texts, by side.
        few: see there.
        filling: of the compiled graph on a CPU, where it is a side.
        launches: on CUDA, with this package's kernels and without.
        left_out: sentences: what was not measured, and why.
        seconds: that the run took.
    """

    subject: Subject
    agreement: tuple[Agreement, ...] = ()
    latency: tuple[Latency, ...] = ()
    batching: tuple[Batching, ...] = ()
    layer_norm: tuple[OpRow, ...] = ()
    ops: tuple[OpRow, ...] = ()
    primitives: dict[str, int] | None = None
    few: int = 0
    filling: Filling | None = None
    launches: tuple[Launches, ...] = ()
    left_out: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def failures(self) -> list[str]:
        """Sentences: what is wrong, and which rows contradict each other; empty where all is well."""
        return [*_vectors(self), *_errors(self), *_contradictions(self)]

    @property
    def agrees(self) -> bool:
        """Whether all numbers are right, whatever their times are."""
        return not (_vectors(self) or _errors(self))

    @property
    def verdict(self) -> str:
        """The run in one sentence."""
        if not self.agrees:
            return "Something computes wrong numbers here: see what failed."
        if _contradictions(self):
            return (
                "All numbers agree, but times contradict each other: run it again while the machine has no other work."
            )
        return self.subject.busy + _fastest(self)


def to_json(report: Report) -> str:
    """The report as JSON text, its failures and its verdict included."""
    values: dict[str, Any] = asdict(report)
    return json.dumps(values | {"failures": report.failures, "verdict": report.verdict}, indent=2)


def read_report(path: Path) -> Report:
    """The report that `to_json` has written to a file.

    Raises:
        OSError: no such file.
        ValueError: it is no such report.
    """
    try:
        report: Report = _made(Report, json.loads(path.read_text(encoding="utf-8")))
        _ = report.failures  # of a dtype that has no limits a KeyError
        return report
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no result of `mlx-embed compare --json`: {error}") from error


def _made(kind: Any, value: Any) -> Any:
    """JSON values as an object of a type that the reports' fields have; what the type does not know is left out."""
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise TypeError(f"{value!r:.80} stands where an object is needed.")
        hints = get_type_hints(kind)
        missing = [f.name for f in fields(kind) if f.name not in value and f.default is MISSING]
        if missing:
            raise ValueError(f"it has no {missing[0]!r}.")
        return kind(**{f.name: _made(hints[f.name], value[f.name]) for f in fields(kind) if f.name in value})  # type: ignore[operator]
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else _made(next(kind for kind in inner if kind is not NoneType), value)
    if origin is tuple and isinstance(value, list):
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_made(kind, item) for kind, item in zip(kinds, value, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _made(inner[1], item) for key, item in value.items()}
    if kind is float and type(value) in (int, float):
        return float(value)
    if type(value) is kind:
        return value
    raise TypeError(f"{value!r} stands where {kind} is needed.")


def _vectors(report: Report) -> list[str]:
    found = []
    for row in report.agreement:
        if not row.min_cosine >= LEAST_COSINE[row.dtype]:
            least = LEAST_COSINE[row.dtype]
            found.append(f"{row.side}: the lowest cosine is {row.min_cosine:.7f}, below {least} for {row.dtype}")
        if row.dtype == "float32" and not row.max_difference <= MAX_DIFFERENCE_FLOAT32:
            found.append(f"{row.side}: vectors differ by {row.max_difference:.2e}, above {MAX_DIFFERENCE_FLOAT32}")
    return found


def _errors(report: Report) -> list[str]:
    norms = [
        f"LayerNorm of {row.input} by {row.way} is {row.error:.2e} off float64"
        for row in report.layer_norm
        if not row.error <= MAX_NORM_ERROR
    ]
    ops = [
        f"{row.op} of {row.input} by {row.way} is {row.error:.2e} off MLX's ops on the CPU"
        for row in report.ops
        if not row.error <= MAX_OP_ERROR[row.dtype]
    ]
    return norms + ops


def _contradictions(report: Report) -> list[str]:
    """The same work timed in two tables must have taken about the same time."""
    timed = {(row.texts, row.side): row.time for row in report.latency}
    found = []
    for row in report.batching:
        other = timed.get((row.texts, row.side))
        if other is not None and other.contradicts(row.batched):
            found.append(
                f"{row.side}: {row.texts} texts took {1e3 * other.seconds:.2f} ms in the table of latencies and "
                f"{1e3 * row.batched.seconds:.2f} ms in that of batching: something disturbed one of them"
            )
    return found


def _fastest(report: Report) -> str:
    """Which side to take for few texts and for many."""
    rows = [row for row in report.latency if row.speed_up is not None]
    if not rows:
        return "There is nothing to compare."
    sizes = sorted({row.texts for row in rows})
    few, many = (_best([row for row in rows if row.texts == size]) for size in (sizes[0], sizes[-1]))
    if few.side == many.side == BASE:
        return f"Nothing here is faster than {BASE}, MLX's own ops."
    within = max(row.max_difference for row in report.agreement if row.side in (few.side, many.side))
    return f"The fastest here: {_praise(few)}; {_praise(many)}. The vectors agree within {within:.0e}."


def _best(rows: list[Latency]) -> Latency:
    """The fastest side; the base, where no other is noticeably faster."""
    return max(rows, key=lambda row: FASTER if row.side == BASE else row.speed_up or 0.0)


def _praise(row: Latency) -> str:
    side = f"for {row.texts} text{'' if row.texts == 1 else 's'} {row.side}"
    return side if row.side == BASE else f"{side}, {row.speed_up:.1f} times as fast as {BASE}"
