"""One or several comparisons as a page: what agrees first, then what is fast, then how each figure was made."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from mlx_embed.measure import html_charts as charts
from mlx_embed.measure.kernels import FEW, MANY
from mlx_embed.measure.report import BASE, OpRow, Report, read_report
from mlx_embed.measure.text import filling_text, latency_rows, method_text
from mlx_embed.pages.charts import figure, small
from mlx_embed.pages.page import document, listed, paragraph, resource, section, table

Reports = Mapping[str, Report]


def named_reports(paths: Sequence[Path]) -> dict[str, Report]:
    """Reports that `mlx-embed compare --json` has written, by names that tell them apart.

    Raises:
        OSError, ValueError: a file that is none.
    """
    found: dict[str, Report] = {}
    for path in paths:
        name = path.stem
        while name in found:
            name += "'"
        found[name] = read_report(path)
    return found


def page(reports: Reports) -> str:
    """A whole HTML page; the first of several reports is the one that the others are compared with.

    Raises:
        ImportError: the extra `report` is not installed.
        ValueError: no reports.
    """
    if not reports:
        raise ValueError("A page needs one report at least.")
    several = len(reports) > 1
    models = list(dict.fromkeys(report.subject.model for report in reports.values()))
    title = "Comparisons of mlx-embed" if several else "Comparison of mlx-embed"
    body = [
        f"<header><h1>{title}</h1>",
        paragraph(f"How fast and how exact its engines are with {' and '.join(models)}.", "soft"),
        *(_verdict(name if several else "", report) for name, report in reports.items()),
        *([paragraph(_different(reports), "soft")] if several else []),
        "</header>\n<main>",
        _agreement(reports),
        *([_side_by_side(reports)] if several else []),
        _latency(reports),
        _batching(reports),
        _layer_norm(reports),
        _ops(reports),
        _launches(reports),
        _machines(reports),
        _method(reports),
        "</main>",
    ]
    return document(title, "\n".join(body), script=resource("marks.js"))


def _verdict(name: str, report: Report) -> str:
    failures = report.failures
    word = "The numbers agree." if report.agrees else "The numbers do not agree."
    if report.agrees and failures:
        word = "The times contradict each other."
    reason = listed([f"{failure}." for failure in failures])
    head = f"{escape(name)}: " if name else ""
    return (
        f"<div class='verdict {'bad' if failures else 'good'}'><b>{'✗' if failures else '✓'} {head}{word}</b>"
        f"{escape(report.verdict)}{reason}</div>"
    )


def _different(reports: Reports) -> str:
    """A sentence where the reports are not of the same thing."""
    subjects = [report.subject for report in reports.values()]
    found = [
        what
        for what, values in (
            ("models", {subject.model for subject in subjects}),
            ("texts", {(subject.texts, subject.tokens) for subject in subjects}),
            ("versions of MLX", {subject.mlx for subject in subjects}),
        )
        if len(values) > 1
    ]
    return f"These are of different {' and '.join(found)}: what differs may be theirs." if found else ""


def _agreement(reports: Reports) -> str:
    rows: list[dict[str, Any]] = [
        _named(name, reports)
        | {
            "side": row.side,
            "dtype": row.dtype,
            "largest difference": f"{row.max_difference:.1e}",
            "lowest cosine": f"{row.min_cosine:.7f}",
        }
        for name, report in reports.items()
        for row in report.agreement
    ]
    return section("Do the vectors agree?", paragraph(f"Unit vectors of the same texts against {BASE}."), table(rows))


def _side_by_side(reports: Reports) -> str:
    first = next(iter(reports))
    parts = [
        figure(
            "Milliseconds of each report's quickest side against the number of texts in a call",
            lambda width: charts.best(reports, width),
            "The quickest side of each report. Both axes are logarithmic.",
        )
    ]
    same = charts.same_sides(reports)
    if same:
        parts += [
            figure(
                f"How many times as fast each side is as in {first}, by texts in a call",
                lambda width: charts.against(reports, width),
                f"The same side in each report: above the dashed line it is faster than in {escape(first)}.",
            ),
            table(_changes(reports), "The figures"),
        ]
    return section("Side by side", *parts)


def _changes(reports: Reports) -> Iterator[dict[str, Any]]:
    """Each side and number of texts in the first report and in the others, and whether that is more than noise."""
    (first, before), *others = reports.items()
    known = {(row.texts, row.side): row.time for row in before.latency}
    for name, report in others:
        for row in report.latency:
            time = known.get((row.texts, row.side))
            if time is not None:
                apart = time.least > row.time.most or row.time.least > time.most
                faster = time.seconds / row.time.seconds
                yield {
                    "report": name,
                    "side": row.side,
                    "texts": row.texts,
                    f"ms in {first}": 1e3 * time.seconds,
                    "ms": 1e3 * row.time.seconds,
                    "times as fast": faster,
                    "change": "within the spread" if not apart else "faster" if faster > 1 else "slower",
                }


def _latency(reports: Reports) -> str:
    rows: list[dict[str, Any]] = [
        {**_named(name, reports), **row} for name, report in reports.items() for row in latency_rows(report)
    ]
    if not rows:
        return ""
    return section(
        "Latency",
        paragraph("encode of so many texts in one call, from strings to numpy vectors: less is better."),
        figure(
            "Milliseconds of each side against the number of texts in a call",
            lambda width: charts.latency(reports, width),
            "Both axes are logarithmic; a bar at a point runs from the quickest round to the slowest.",
        ),
        figure(
            f"How many times as fast as {BASE} each side is, by texts in a call",
            lambda width: charts.ratio(reports, width),
            f"Above the dashed line a side is faster than {BASE}, MLX's own ops on its CPU stream.",
        )
        if any(row["times as fast"] and row["side"] != BASE for row in rows)
        else "",
        table(rows, "The figures"),
        *dict.fromkeys(paragraph(filling_text(report), "soft") for report in reports.values()),
    )


def _batching(reports: Reports) -> str:
    rows: list[dict[str, Any]] = [
        _named(name, reports)
        | {
            "texts": row.texts,
            "side": row.side,
            "one by one, ms": 1e3 * row.one_by_one.seconds,
            "batched, ms": 1e3 * row.batched.seconds,
            "spread": f"{row.batched.spread:.0%}",
            "batching gains": row.gain,
        }
        for name, report in reports.items()
        for row in report.batching
    ]
    if not rows:
        return ""
    return section(
        "What batching buys",
        figure(
            "How many times as fast a batch is as the same texts one by one, by side",
            lambda width: charts.batching(reports, width),
            "Of the same texts: at the upright line a batch is as fast as single calls, to its right faster.",
        ),
        table(rows, "The figures"),
    )


def _layer_norm(reports: Reports) -> str:
    found = {name: report.layer_norm for name, report in reports.items()}
    return section(
        "LayerNorm, by each way to compute it",
        *_bars(
            found,
            _ways(reports),
            "In float32; errors are against numpy in float64. The upright mark is how long a copy of as many bytes "
            "takes on the same device.",
        ),
    )


def _ops(reports: Reports) -> str:
    found = {name: report.ops for name, report in reports.items()}
    return section(
        "The fused ops",
        *_bars(
            found,
            _ways(reports),
            f"Few tokens are {FEW.tokens}, many are {MANY.tokens}; errors are against MLX's ops on its "
            "CPU stream in float32, as shares of the largest value. Where there is an upright mark, it is how long a "
            "copy of as many bytes takes as the op reads and writes at least; products are bound by arithmetic, and "
            "cannot come near it. Ops that read some rows of a table have none.",
        ),
    )


def _ways(reports: Reports) -> list[str]:
    """All ways to compute: each has one colour on the whole page."""
    return list(dict.fromkeys(row.way for r in reports.values() for row in (*r.layer_norm, *r.ops)))


def _bars(found: Mapping[str, Sequence[OpRow]], ways: Sequence[str], about: str) -> list[str]:
    """A chart for each op and input, and the table of them all."""
    rows = [(name, row) for name, rows in found.items() for row in rows]
    if not rows:
        return []
    places = list(dict.fromkeys((row.op, row.input) for _, row in rows))
    drawn: dict[tuple[str, str], dict[str, list[OpRow]]] = {place: {} for place in places}
    for name, row in rows:
        drawn[row.op, row.input].setdefault(name, []).append(row)
    parts = [paragraph(about)]
    for op, inputs in groupby(places, key=lambda place: place[0]):
        parts.append(f"{f'<h3>{escape(op)}</h3>' if len({name for name, _ in places}) > 1 else ''}<div class='grid'>")
        for _, given in inputs:
            label = f"Microseconds of {op} on {given} by each way to compute it"
            parts.append(small(label, given, charts.op(drawn[op, given], ways)))
        parts.append("</div>")
    several = len(found) > 1
    table_rows: list[dict[str, Any]] = [
        ({"report": name} if several else {})
        | {
            "op": row.op,
            "input": row.input,
            "by": row.way,
            "call, us": 1e6 * row.call.seconds,
            "launch, us": None if row.chain is None else 1e6 * row.chain.seconds,
            "spread": f"{(row.chain or row.call).spread:.0%}",
            "GB/s": row.gigabytes_per_second,
            "a copy, us": None if row.limit is None else 1e6 * row.limit,
            "error": row.error,
        }
        for name, row in rows
    ]
    return [*parts, table(table_rows, "The figures")]


def _launches(reports: Reports) -> str:
    if not any(report.launches or report.primitives for report in reports.values()):
        return ""
    few = next(report.few for report in reports.values() if report.launches or report.primitives)
    names = [
        _named(name, reports) | {"kernels": row.kernels, "kernel": kernel, "launches": count}
        for name, report in reports.items()
        for row in report.launches
        for kernel, count in row.of.items()
    ]
    return section(
        "Launches and primitives",
        paragraph(
            f"Of a forward pass of {few} texts. A fused group counts as one primitive; views count, and are no "
            "launches."
        ),
        figure("Kernel launches and primitives of a forward pass", lambda width: charts.launches(reports, width)),
        table(names, "Each kernel"),
    )


def _machines(reports: Reports) -> str:
    about = []
    sides = []
    for name, report in reports.items():
        subject = report.subject
        least, mean, most = subject.tokens
        about.append(
            {
                "model": f"{subject.model}, {subject.dimension} dimensions",
                "texts": f"{subject.texts} different ones of {least} to {most} tokens, {mean:.1f} on average",
                "software": f"mlx {subject.mlx}, {subject.platform}",
                "native kernels": subject.native,
                "accelerator": subject.accelerator or "none",
                "load before the run": f"{subject.load:.1f} on {subject.cores} cores",
                "the run took": f"{report.seconds:.0f} s",
            }
        )
        sides += [
            _named(name, reports)
            | {"side": s.name, "engine": s.engine, "device": s.device, "dtype": s.dtype, "CPU threads": s.threads}
            for s in subject.sides
        ]
    # A column a report: there are more facts than reports.
    names = [name if len(reports) > 1 else "this run" for name in reports]
    turned = [{"": key} | {n: row[key] for n, row in zip(names, about, strict=True)} for key in about[0]]
    busy = [report.subject.busy for report in reports.values()]
    return section("How the machine was", *(paragraph(text) for text in busy), table(turned), table(sides))


def _method(reports: Reports) -> str:
    left_out = [
        f"{name + ': ' if len(reports) > 1 else ''}{sentence}."
        for name, report in reports.items()
        for sentence in report.left_out
    ]
    return section(
        "How each figure was made",
        *dict.fromkeys(paragraph(method_text(report)) for report in reports.values()),
        paragraph("The page was made of the JSON that `mlx-embed compare --json` writes, by `mlx-embed report`."),
        *(["<h3>Left out</h3>", listed(left_out)] if left_out else []),
    )


def _named(name: str, reports: Reports) -> dict[str, Any]:
    return {"report": name} if len(reports) > 1 else {}
