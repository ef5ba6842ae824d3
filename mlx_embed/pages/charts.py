"""Charts as SVG, drawn by Vega-Lite: lines, bars and labels for screen readers, in the page's own colours.

https://vega.github.io/vega-lite/docs/ says what a specification is made of.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any, TypeAlias

Spec: TypeAlias = Mapping[str, Any]

# Of a chart's inside, in pixels: on a screen, and on a phone.
WIDE, NARROW = 820, 250
# Of one width in all systems, so that what is laid out here fits there.
FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
# Colours are variables of the page, which has them for light and dark; see style.css.
COLOURS = [f"var(--c{n})" for n in range(1, 9)]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
CONFIG = {
    "background": None,
    "padding": {"left": 12, "top": 5, "right": 12, "bottom": 5},
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--ink)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 220,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--ink)",
        "labelFontSize": 12,
        "labelLimit": 240,
        "symbolStrokeWidth": 2,
        "orient": "top",
        "columnPadding": 28,
    },
    "header": {"labelColor": "var(--ink)", "titleColor": "var(--ink)", "labelFontSize": 13, "labelFontWeight": "bold"},
    "range": {"category": COLOURS},
    "line": {"strokeWidth": 2},
    "point": {"size": 50, "filled": True, "opacity": 1},
    "rule": {"color": "var(--limit)", "strokeWidth": 2},
    "tick": {"color": "var(--limit)", "thickness": 3},
    "text": {"color": "var(--ink)", "fontSize": 12},
}
_LONG_NUMBER = re.compile(r"(\d+\.\d)\d+")
_TRANSFORMS = re.compile(r'(?<= )(?:d|transform|x|y|x2|y2|width|height|viewBox)="[^"]*"')


def require() -> None:
    """Raise ImportError where charts cannot be drawn."""
    try:
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise ImportError('Pages need vl-convert-python: pip install ".[report]" in a clone of mlx-embed') from error


def svg(spec: Spec, label: str) -> str:
    """A specification's picture; `label` says what it shows to whoever does not see it.

    Raises:
        ImportError: the extra is not installed.
        ValueError: no specification.
    """
    require()
    import vl_convert

    drawn = vl_convert.vegalite_to_svg({"config": CONFIG, **spec}, vl_version="5.21")
    # Tenths of a pixel are enough, and half of the text.
    drawn = _TRANSFORMS.sub(lambda found: _LONG_NUMBER.sub(r"\1", found[0]), drawn)
    head = f'<svg role="graphics-document document" aria-label="{escape(label)}"'
    # What links to the same page's other pictures is not used, and no page needs it.
    return drawn.replace("<svg", head, 1).replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "", 1)


def figure(label: str, spec: Callable[[int], Spec], caption: str = "") -> str:
    """A picture that is drawn twice, for screens and for phones, of which the page shows one.

    Args:
        label: what it shows, as `svg` takes it.
        spec: of a width in pixels: a specification.
        caption: below it, as HTML.
    """
    drawn = "".join(
        f'<div class="{name}">{svg(spec(width), label)}</div>' for name, width in (("wide", WIDE), ("narrow", NARROW))
    )
    return f"<figure>{drawn}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"


def small(label: str, title: str, spec: Spec) -> str:
    """A picture that is small enough for a phone, with a title above it."""
    return f'<figure class="small"><figcaption>{escape(title)}</figcaption>{svg(spec, label)}</figure>'


def logarithmic(field: str, title: str, values: Iterable[float]) -> dict[str, Any]:
    """A channel on a logarithmic axis around `values`, with round numbers, and few of them."""
    known = list(values) or [1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    steps = (1,) if high - low > 2 else (1, 2, 5)
    least, most = min(known) / 1.15, max(known) * 1.15  # room for a mark at either end
    marks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    marks = [mark for mark in marks if least <= mark <= most]
    if len(marks) < 2:
        marks = [float(f"{value:.2g}") for value in (min(known), max(known))]
    axis = {"values": marks, "labelExpr": "format(datum.value, datum.value < 1 ? '~g' : ',~g')"}
    scale = {"type": "log", "domain": [least, most], "nice": False}
    return {"field": field, "type": "quantitative", "scale": scale, "title": title, "axis": axis}
