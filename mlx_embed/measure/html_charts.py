"""The charts of a comparison's page, as Vega-Lite's specifications; `html` puts them in their places."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlx_embed.measure.report import BASE, Latency, OpRow, Report
from mlx_embed.pages.charts import COLOURS, SHAPES, WIDE, Spec, logarithmic

Reports = Mapping[str, Report]


def sides_of(reports: Reports) -> list[str]:
    """All sides, in the order of the reports: each has one colour on the whole page."""
    return list(dict.fromkeys(row.side for report in reports.values() for row in report.latency))


def latency(reports: Reports, width: int) -> Spec:
    """Milliseconds against the number of texts, both logarithmic: a panel for each report."""
    values: list[dict[str, Any]] = [
        {
            "texts": row.texts,
            "ms": 1e3 * row.time.seconds,
            "least": 1e3 * row.time.least,
            "most": 1e3 * row.time.most,
            "side": row.side,
            "report": name,
            "says": _latency_words(row, name if len(reports) > 1 else ""),
        }
        for name, report in reports.items()
        for row in report.latency
    ]
    sizes = sorted({value["texts"] for value in values})
    x = _log_x("texts in a call", sizes)
    y = logarithmic("ms", "milliseconds", (value[end] for value in values for end in ("least", "most")))
    layers = [
        {
            "mark": {"type": "rule", "strokeWidth": 1.5, "aria": False},
            "encoding": {
                "x": x,
                "y": {**y, "field": "least"},
                "y2": {"field": "most"},
                "color": _colour(reports, width),
            },
        },
        *_lines(x, y, reports, width),
    ]
    return _panels({"layer": layers}, values, list(reports), "report", width)


def ratio(reports: Reports, width: int) -> Spec:
    """How many times as fast as the base each side is, by the number of texts."""
    values: list[dict[str, Any]] = [
        {
            "texts": row.texts,
            "times": row.speed_up,
            "side": row.side,
            "report": name,
            "says": f"{_prefix(name, reports)}{row.side}, {_texts(row.texts)}: {row.speed_up:.2f} times as fast as "
            f"{BASE}",
        }
        for name, report in reports.items()
        for row in report.latency
        if row.speed_up is not None and row.side != BASE
    ]
    x = _log_x("texts in a call", sorted({value["texts"] for value in values}))
    y = logarithmic("times", f"times as fast as {BASE}", [1.0, *(value["times"] for value in values)])
    layers = [_line_at_one(), *_lines(x, y, reports, width)]
    return _panels({"layer": layers}, values, list(reports), "report", width)


def against(reports: Reports, width: int) -> Spec:
    """How many times as fast each side of the other reports is as the same side of the first."""
    values = list(_against(reports))
    others = list(dict.fromkeys(value["report"] for value in values))
    x = _log_x("texts in a call", sorted({value["texts"] for value in values}))
    y = logarithmic("times", f"times as fast as in {next(iter(reports))}", [1.0, *(value["times"] for value in values)])
    return _panels({"layer": [_line_at_one(), *_lines(x, y, reports, width)]}, values, others, "report", width)


def same_sides(reports: Reports) -> bool:
    """Whether a later report has a side and a number of texts of the first."""
    return next(iter(_against(reports)), None) is not None


def best(reports: Reports, width: int) -> Spec:
    """The quickest side of each report, by the number of texts: one machine beside the other."""
    values: list[dict[str, Any]] = []
    for name, report in reports.items():
        for size in sorted({row.texts for row in report.latency}):
            row = min((row for row in report.latency if row.texts == size), key=lambda row: row.time.seconds)
            values.append(
                {"texts": size, "ms": 1e3 * row.time.seconds, "report": name, "says": _latency_words(row, name)}
            )
    x = _log_x("texts in a call", sorted({value["texts"] for value in values}))
    names = list(reports)
    shape = {"field": "report", "type": "nominal", "scale": {"domain": names, "range": SHAPES}, "legend": None}
    y = logarithmic("ms", "milliseconds", (value["ms"] for value in values))
    encoding = {"x": x, "y": y, "color": _by_report(names, width)}
    said = {"description": {"field": "says"}}
    return {
        "data": {"values": values},
        "width": width,
        "height": 260,
        "layer": [
            {"mark": {"type": "line", "aria": False}, "encoding": encoding},
            {"mark": "point", "encoding": encoding | {"shape": shape} | said},
        ],
    }


def batching(reports: Reports, width: int) -> Spec:
    """What a batch gains over single calls, by side and number of texts."""
    values: list[dict[str, Any]] = [
        {
            "side": row.side,
            "texts": _texts(row.texts),
            "gain": row.gain,
            "report": name,
            "says": f"{_prefix(name, reports)}{row.side}, {_texts(row.texts)}: one batch is {row.gain:.2f} times as "
            "fast as single calls",
        }
        for name, report in reports.items()
        for row in report.batching
    ]
    sizes = list(dict.fromkeys(value["texts"] for value in values))
    bars = {
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "side", "type": "nominal", "sort": None, "title": None, "axis": _few_labels(width)},
            "yOffset": {"field": "texts", "sort": sizes},
            "x": {"field": "gain", "type": "quantitative", "title": "times as fast as one by one"},
            "color": {
                "field": "texts",
                "type": "nominal",
                "scale": {"domain": sizes, "range": COLOURS[1:]},
                **_legend(width),
            },
            "description": {"field": "says"},
        },
    }
    one = {"mark": {"type": "rule", "aria": False}, "encoding": {"x": {"datum": 1}}}
    return _panels({"layer": [bars, one]}, values, list(reports), "report", _beside_labels(width), height={"step": 14})


def op(rows: Mapping[str, Sequence[OpRow]], ways: Sequence[str]) -> Spec:
    """Microseconds of each way to compute one op on one input, and the time of a copy of as many bytes.

    Args:
        rows: by the name of their report.
        ways: of the whole page, each of which has one colour there.
    """
    several = len(rows) > 1
    values: list[dict[str, Any]] = []
    for name, found in rows.items():
        for row in found:
            seconds = (row.chain or row.call).seconds
            limit = "" if row.limit is None else f"; a copy of as many bytes takes {_us(row.limit)}"
            values.append(
                {
                    "way": row.way,
                    "us": 1e6 * seconds,
                    "limit": None if row.limit is None else 1e6 * row.limit,
                    "report": name,
                    "says": f"{_prefix(name, rows)}{row.way}: {_us(seconds)}{limit}",
                }
            )
    y = {"field": "way", "type": "nominal", "sort": None, "title": None, "axis": _few_labels(0)}
    bars = {
        "mark": "bar",
        "encoding": {
            "y": y,
            "x": {"field": "us", "type": "quantitative", "title": "microseconds", "axis": {"tickCount": 4}},
            "color": {"field": "way", "scale": {"domain": list(ways), "range": COLOURS}, "legend": None},
            "description": {"field": "says"},
        },
    }
    limits = {
        "transform": [{"filter": "isValid(datum.limit)"}],
        "mark": {"type": "tick", "size": 18, "aria": False},
        "encoding": {"y": y, "x": {"field": "limit", "type": "quantitative"}},
    }
    layered = {"layer": [bars, limits]}
    if not several:
        return {"data": {"values": values}, "width": 190, "height": {"step": 24}, **layered}
    row_by = {"field": "report", "sort": list(rows), "title": None, "header": {"labelOrient": "top"}}
    return {
        "data": {"values": values},
        "facet": {"row": row_by},
        "spec": {"width": 190, "height": {"step": 24}, **layered},
        "resolve": {"scale": {"y": "independent"}},
        "spacing": 8,
    }


def launches(reports: Reports, width: int) -> Spec:
    """Kernel launches and primitives of a forward pass."""
    values: list[dict[str, Any]] = [
        {"report": name, "what": f"{row.kernels} kernels: launches", "count": row.launches}
        for name, report in reports.items()
        for row in report.launches
    ] + [
        {"report": name, "what": f"{side}: primitives", "count": count}
        for name, report in reports.items()
        for side, count in (report.primitives or {}).items()
    ]
    several = len(reports) > 1
    for value in values:
        value["says"] = f"{_prefix(value['report'], reports)}{value['what']}: {value['count']}"
    encoding: dict[str, Any] = {
        "y": {"field": "what", "type": "nominal", "sort": None, "title": None, "axis": _few_labels(width)},
        "x": {"field": "count", "type": "quantitative", "title": "of one forward pass"},
        "description": {"field": "says"},
    }
    if several:
        names = list(reports)
        colour = {
            "field": "report",
            "type": "nominal",
            "scale": {"domain": names, "range": COLOURS[1:]},
            **_legend(width),
        }
        encoding |= {"yOffset": {"field": "report", "sort": names}, "color": colour}
    else:
        encoding["color"] = {"value": COLOURS[1]}
    step = {"step": 14 if several else 26}
    bars = {"mark": "bar", "encoding": encoding}
    return {"data": {"values": values}, "width": _beside_labels(width), "height": step, **bars}


def _lines(x: Any, y: Any, reports: Reports, width: int) -> list[Any]:
    sides = sides_of(reports)
    shape = {"field": "side", "scale": {"domain": sides, "range": SHAPES}, "legend": None}
    encoding = {"x": x, "y": y, "color": _colour(reports, width)}
    return [
        {"mark": {"type": "line", "aria": False}, "encoding": encoding},
        {"mark": "point", "encoding": encoding | {"shape": shape, "description": {"field": "says"}}},
    ]


def _line_at_one() -> Any:
    return {"mark": {"type": "rule", "strokeDash": [4, 4], "aria": False}, "encoding": {"y": {"datum": 1}}}


def _against(reports: Reports) -> Iterable[dict[str, Any]]:
    (first, before), *others = reports.items()
    known = {(row.texts, row.side): row.time.seconds for row in before.latency}
    for name, report in others:
        for row in report.latency:
            seconds = known.get((row.texts, row.side))
            if seconds is not None:
                times = seconds / row.time.seconds
                yield {
                    "texts": row.texts,
                    "times": times,
                    "side": row.side,
                    "report": name,
                    "says": f"{row.side}, {_texts(row.texts)}: {name} is {times:.2f} times as fast as {first}",
                }


def _panels(spec: Any, values: list[Any], names: list[str], field: str, width: int, height: Any = 260) -> Spec:
    """The same chart once for each of `names`, beside or below one another, on the same axes."""
    if len(names) == 1:
        return {"data": {"values": values}, "width": width, "height": height, **spec}
    columns = 1 if width < WIDE // 2 else min(len(names), 2)
    each = width // columns - (30 if columns > 1 else 0)
    return {
        "data": {"values": values},
        "facet": {"field": field, "type": "nominal", "sort": names, "title": None},
        "columns": columns,
        "spec": {"width": each, "height": height, **spec},
        "spacing": 24,
        "resolve": {"axis": {"x": "independent"}},
    }


def _colour(reports: Reports, width: int) -> Any:
    sides = sides_of(reports)
    return {"field": "side", "type": "nominal", "scale": {"domain": sides, "range": COLOURS}, **_legend(width)}


def _by_report(names: list[str], width: int) -> Any:
    return {"field": "report", "type": "nominal", "scale": {"domain": names, "range": COLOURS[1:]}, **_legend(width)}


def _legend(width: int) -> dict[str, Any]:
    return {"legend": {"title": None, "columns": 4 if width >= WIDE else 1}}


def _log_x(title: str, sizes: list[int]) -> Any:
    axis = {"values": sizes, "format": ",d", "grid": False}
    return {"field": "texts", "type": "quantitative", "scale": {"type": "log"}, "title": title, "axis": axis}


def _few_labels(width: int) -> Any:
    return {"labelLimit": 220 if width >= WIDE else 130, "ticks": False, "domain": False, "labelPadding": 6}


def _beside_labels(width: int) -> int:
    """Of the chart's inside, where there are names to its left."""
    return width - (60 if width >= WIDE else 80)


def _latency_words(row: Latency, report: str) -> str:
    ratio = "" if row.speed_up is None or row.side == BASE else f", {row.speed_up:.2f} times as fast as {BASE}"
    where = f"{report}: " if report else ""
    return (
        f"{where}{row.side}, {_texts(row.texts)}: {1e3 * row.time.seconds:,.2f} ms "
        f"({1e3 * row.time.least:,.2f} to {1e3 * row.time.most:,.2f}){ratio}"
    )


def _prefix(name: str, reports: Mapping[str, Any]) -> str:
    return f"{name}: " if len(reports) > 1 else ""


def _texts(count: int) -> str:
    return f"{count} text{'' if count == 1 else 's'}"


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:,.3g} us" if seconds < 1e-4 else f"{1e6 * seconds:,.0f} us"
