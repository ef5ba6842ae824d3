"""Draw docs/speed.svg, README's picture, of the figures in docs/benchmarks.md; --check says whether it is theirs.

Needs the extra `report`. Run it again when the table "Each dtype" has other figures.
"""

import argparse
import re
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE, PICTURE = ROOT / "docs/benchmarks.md", ROOT / "docs/speed.svg"
HEADING = "### Each dtype"
# What is drawn of that table, by its rows' names, and what these are called in the picture.
ROWS = {
    "1 text x 16 tokens": "1 text of 16 tokens",
    "32 x 128": "32 texts of 128 tokens",
    "1000 sentences of 5 to 40 words": "1000 sentences",
}
AXIS = {"ticks": False, "domain": False, "labelPadding": 6}
LIGHT = {"ink": "#1d2430", "line": "#d5dae2", "own": "#0b69c7", "other": "#8a93a3", "c1": "#6b7280"}
DARK = {"ink": "#e7eaf0", "line": "#39414e", "own": "#6ab0ff", "other": "#8d97a8", "c1": "#a3abb8"}


def figures(text: str) -> dict[str, dict[str, float]]:
    """Milliseconds by row and engine, of the table that follows HEADING; cells are "112.5 (1.85x)", or "-"."""
    lines = text[text.index(HEADING) :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = takewhile(lambda line: line.startswith("|"), lines[start:])
    table = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    header = table[0][1:]
    found = {}
    for name, *cells in table[2:]:
        if name in ROWS:
            numbers = [re.match(r"[\d.]+", cell) for cell in cells]
            found[name] = {
                engine: float(number[0]) for engine, number in zip(header, numbers, strict=True) if number is not None
            }
    missing = [name for name in ROWS if name not in found]
    if missing:
        raise SystemExit(f"{SOURCE.name} has no row {missing[0]!r} under {HEADING!r}.")
    return found


def label(row: str, engine: str, milliseconds: float) -> str:
    """What a bar says."""
    return f"{ROWS[row]}, {engine}: {milliseconds:g} ms"


def specification(found: dict[str, dict[str, float]]) -> Any:
    """A panel a row, a bar an engine; this package's are the blue ones."""
    values = [
        {
            "row": ROWS[row],
            "engine": engine.replace("native", "mlx-embed"),
            "ms": milliseconds,
            "shown": f"{milliseconds:,.3g} ms" if milliseconds < 1000 else f"{milliseconds:,.0f} ms",
            "kind": "own" if engine.startswith("native") else "other",
            "says": label(row, engine, milliseconds),
        }
        for row, engines in found.items()
        for engine, milliseconds in engines.items()
    ]
    y = {"field": "engine", "type": "nominal", "sort": None, "title": None, "axis": AXIS}
    x = {"field": "ms", "type": "quantitative", "axis": None, "scale": {"nice": False}}
    own = {"field": "kind", "type": "nominal", "legend": None}
    colours = {"domain": ["own", "other"], "range": ["var(--own)", "var(--other)"]}
    bars = {"mark": "bar", "encoding": {"color": own | {"scale": colours}, "description": {"field": "says"}}}
    numbers = {
        "mark": {"type": "text", "align": "left", "dx": 4, "aria": False},
        "encoding": {"text": {"field": "shown"}},
    }
    return {
        "data": {"values": values},
        "facet": {"field": "row", "type": "nominal", "sort": list(ROWS.values()), "title": None},
        "columns": 3,
        "spacing": 64,
        "spec": {"width": 130, "height": {"step": 20}, "encoding": {"x": x, "y": y}, "layer": [bars, numbers]},
        "resolve": {"scale": {"x": "independent"}},
    }


def drawn(found: dict[str, dict[str, float]]) -> str:
    """The picture; its colours are the reader's, light or dark."""
    sys.path.insert(0, str(ROOT))
    from mlx_embed.pages.charts import svg

    def variables(colours: dict[str, str]) -> str:
        return "svg{" + "".join(f"--{name}:{value};" for name, value in colours.items()) + "}"

    picture = svg(specification(found), "Milliseconds to embed, by engine: less is better")
    style = f"<style>{variables(LIGHT)}@media(prefers-color-scheme:dark){{{variables(DARK)}}}</style>"
    return re.sub(r"(<svg [^>]*>)", rf"\1{style}", picture, count=1) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="draw nothing; 1 where the picture has other figures")
    options = parser.parse_args()
    found = figures(SOURCE.read_text(encoding="utf-8"))
    if not options.check:
        PICTURE.write_text(drawn(found), encoding="utf-8")
        print(f"wrote {PICTURE.relative_to(ROOT)}")
        return 0
    text = PICTURE.read_text(encoding="utf-8")
    wanted = [label(row, engine, ms) for row, engines in found.items() for engine, ms in engines.items()]
    gone = [one for one in wanted if f'aria-label="{one}"' not in text]
    stale = len(re.findall(r'aria-label="[^"]* ms"', text)) - len(wanted) + len(gone)
    for one in gone:
        print(f"docs/speed.svg does not have: {one}")
    return 1 if gone or stale else 0


if __name__ == "__main__":
    sys.exit(main())
