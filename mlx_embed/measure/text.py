"""A comparison's report, and other tables, as text for a person."""

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

from mlx_embed.measure import kernels
from mlx_embed.measure.report import BASE, COMPILED, OpRow, Report, Subject
from mlx_embed.measure.timing import PLAN

WIDTH = 118
Row = Mapping[str, Any]


def as_text(report: Report) -> str:
    """The whole report, the verdict last."""
    few, many = (load.tokens for load in kernels.LOADS)
    lines = [
        *_about(report.subject),
        *_section(f"Unit vectors against {BASE}", _agreement(report)),
        *_section("Latency of encode, from strings to numpy vectors", latency_rows(report)),
        *([*wrap(filling_text(report), WIDTH), ""] if report.filling else []),
        *_section("One by one against one batch", _batching(report)),
        *_section(
            "LayerNorm, float32; errors are against numpy in float64, GB/s count one read and one write",
            _ops(report.layer_norm, named=False),
        ),
        *_section(
            f"Ops: few tokens are {few}, many are {many}; errors are against MLX's ops on its CPU stream in float32,\n"
            "as shares of the largest value",
            _ops(report.ops, named=True),
        ),
        *_section(
            f"Primitives in the graph of a forward pass of {report.few} texts: a fused group counts as one;\n"
            "views count, and are no launches",
            [report.primitives] if report.primitives else [],
        ),
        *_section(f"Kernel launches of a forward pass of {report.few} texts on CUDA", _launches(report)),
        *wrap(method_text(report), WIDTH),
        "",
        *(f"Left out: {sentence}." for sentence in report.left_out),
        *(f"FAILED: {failure}." for failure in report.failures),
        f"Verdict: {report.verdict}",
    ]
    return "\n".join(lines)


def _agreement(report: Report) -> list[Row]:
    return [
        {
            "side": row.side,
            "dtype": row.dtype,
            "largest difference": f"{row.max_difference:.1e}",
            "lowest cosine": f"{row.min_cosine:.7f}",
        }
        for row in report.agreement
    ]


def latency_rows(report: Report) -> list[Row]:
    """The table of times by side and number of texts."""
    return [
        {
            "texts": row.texts,
            "side": row.side,
            "ms": 1e3 * row.time.seconds,
            "spread": f"{row.time.spread:.0%}",
            "rounds": row.time.rounds,
            "texts/s": row.texts / row.time.seconds,
            "times as fast": row.speed_up,
        }
        for row in report.latency
    ]


def _batching(report: Report) -> list[Row]:
    return [
        {
            "texts": row.texts,
            "side": row.side,
            "one by one, ms": 1e3 * row.one_by_one.seconds,
            "batched, ms": 1e3 * row.batched.seconds,
            "spread": f"{row.batched.spread:.0%}",
            "rounds": row.batched.rounds,
            "batching gains": row.gain,
        }
        for row in report.batching
    ]


def _launches(report: Report) -> list[Row]:
    return [{"kernels": row.kernels, "launches": row.launches} for row in report.launches]


def method_text(report: Report) -> str:
    """How the figures were made."""
    text = (
        f"Times are medians of up to {PLAN.rounds} rounds. In each, every side has a turn: a run, or what fits into "
        f"{PLAN.turn} s, after a pause of {PLAN.pause} s in which the threads of the side before come to rest; ops "
        f"have {kernels.PLAN.rounds} rounds of shorter turns. Spread is from the quickest round to the slowest, as a "
        "share of the median. "
    )
    if report.subject.accelerator:
        text += (
            "A call is timed until its result is there; a launch as one of many that are waited for together, as in a "
            "model. Every way to compute an op has arrays of its own, on its own device. "
        )
    return f"{text}The run took {report.seconds:.0f} s."


def _about(subject: Subject) -> list[str]:
    least, mean, most = subject.tokens
    return [
        f"Model     {subject.model}, {subject.dimension} dimensions",
        f"Texts     {subject.texts} different ones of {least} to {most} tokens, {mean:.1f} on average",
        f"Software  mlx {subject.mlx}, {subject.platform}",
        f"Native    {subject.native}",
        f"Load      {subject.load:.1f} before the run, on {subject.cores} cores",
        table(
            {
                "side": side.name,
                "engine": side.engine,
                "device": side.device,
                "dtype": side.dtype,
                "CPU threads": side.threads,
            }
            for side in subject.sides
        ),
        "",
    ]


def _ops(rows: Sequence[OpRow], *, named: bool) -> list[Row]:
    chained = any(row.chain for row in rows)
    return [
        ({"op": row.op} if named else {})
        | {"input": row.input, "by": row.way, "call, us": 1e6 * row.call.seconds}
        | ({"launch, us": 1e6 * row.chain.seconds if row.chain else None} if chained else {})
        | {"spread": f"{(row.chain or row.call).spread:.0%}"}
        | ({"GB/s": row.gigabytes_per_second} if row.bytes else {})
        | {"error": row.error}
        for row in rows
    ]


def filling_text(report: Report) -> str:
    """Why the compiled graph is no faster, where it is a side; or ""."""
    filled = report.filling
    if filled is None:
        return ""
    return (
        f"Why {COMPILED} is slow: a graph is compiled for each of a few shapes, and batches are filled up to one of "
        "them. "
        f"{filled.texts} texts of {filled.tokens} tokens become {filled.computed} tokens, and attention's block has "
        f"{filled.computed_block:,} places instead of {filled.block:,}. What MLX compiles for a CPU is scalar code for "
        "one thread; on a GPU filling costs little, and compiling saves launches."
    )


def _section(title: str, rows: Iterable[Row]) -> list[str]:
    """A table with its title, or nothing where it has no rows."""
    lines = table(rows)
    return [title, lines, ""] if lines else []


def table(rows: Iterable[Row]) -> str:
    """Rows under the names of their columns; nothing where there are none."""
    rows = list(rows)
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = _widths(cells)
    return "\n".join("  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells)


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Rows of words, each column to the left."""
    rows = list(rows)
    widths = _widths(rows)
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 0.01 else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)
