"""Search an index that `mlx-embed index` has made, by meaning, by words, or by both."""

import argparse
import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_embed import terminal

if TYPE_CHECKING:
    from mlx_embed.index import Hit

_BOLD, _DIM, _PLAIN = "\x1b[1;33m", "\x1b[2m", "\x1b[0m"
# Characters of each heading that a passage stands under; a long first line of a paragraph may be taken for one.
_HEADING = 80


def add(parser: argparse.ArgumentParser) -> None:
    """The question, the index, and how to search and show."""
    parser.add_argument("query", metavar="QUERY", help="what to look for")
    parser.add_argument("--index", type=Path, required=True, metavar="DIR", help="the index")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="how many passages (%(default)s)")
    parser.add_argument(
        "--mode", choices=("hybrid", "vector", "text"), default="hybrid", help="by both, meaning, words (%(default)s)"
    )
    parser.add_argument("--reranker", metavar="MODEL", help="a cross-encoder, to put the best in a better order")
    parser.add_argument(
        "--filter",
        dest="filters",
        action="append",
        default=[],
        metavar="TEST",
        help="only what passes: 'path=docs/**', 'path=*.md', 'id>=100'; repeatable, of one name with = any may hold; a "
        "name in double quotes is of metadata, whatever it is called",
    )
    parser.add_argument("--min-score", type=float, metavar="X", help="nothing of a lower score")
    parser.add_argument(
        "--context", type=int, default=0, metavar="N", help="lines of the file around each (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: a list of passages with all that is known")


def run(options: argparse.Namespace) -> int:
    """Print what is found, best first."""
    from mlx_embed.arguments import finite_number
    from mlx_embed.index import Index
    from mlx_embed.index.marks import marks

    conditions = wanted(options.filters)
    if options.min_score is not None:
        finite_number("--min-score", options.min_score)
    if options.context and options.json:
        raise ValueError("--context is of passages as text; JSON has where each stands in its file.")
    if options.context < 0:
        raise ValueError(f"--context {options.context} is not a number of lines.")
    reranker = None
    if options.reranker is not None:
        from mlx_embed.cross_encoder import CrossEncoder

        reranker = CrossEncoder.from_pretrained(options.reranker)
    with Index.open(options.index, read_only=True) as index:
        hits = index.search(
            options.query,
            options.k,
            mode=options.mode,
            filter=conditions,
            rerank=reranker,
            min_score=options.min_score,
        )
    if options.json:
        found = [{**asdict(hit), "matches": marks(options.query, hit.text)} for hit in hits]
        # What a terminal cannot show is escaped as JSON has it.
        shows_all = sys.stdout is not None and (sys.stdout.encoding or "utf-8").lower().startswith("utf")
        print(json.dumps(found, ensure_ascii=not shows_all, indent=2))
        return 0
    colour = sys.stdout is not None and sys.stdout.isatty()
    colour = colour and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for number, hit in enumerate(hits):
        if number:
            print()
        print(as_text(hit, marks(options.query, hit.text) if colour else [], options.context, colour))
    if not hits and sys.stderr is not None:
        print(f"Nothing is found{why(options, conditions)}.", file=sys.stderr)
    return 0


def why(options: argparse.Namespace, conditions: dict[str, Any]) -> str:
    """Whether it is the filter: without other limits a vector finds whatever passes."""
    if not conditions or not options.query.strip() or options.mode == "text" or options.min_score is not None:
        return ""
    from mlx_embed.index import filters

    paths = conditions.get(filters.PATH)
    return f": nothing passes --filter {' '.join(options.filters)}" + (f" (path: {', '.join(paths)})" if paths else "")


def wanted(conditions: list[str]) -> dict[str, Any]:
    """The filter of some conditions; a path with folders that begins with neither / nor ** is below the current one."""
    from mlx_embed.index import filters

    found = filters.parsed(conditions)
    for own in (found, found.get(filters.METADATA, {})):
        for name, values in own.items():
            if isinstance(values, list):
                # What is kept as text may look like a number: a CSV's 007 or 1.5.
                own[name] = [*values, *(str(value) for value in values if type(value) in (int, float))]
    if isinstance(globs := found.get(filters.PATH, []), dict):
        raise ValueError(f'--filter: a path takes "=" and a glob, not "{next(iter(globs))}".')
    if globs:
        found[filters.PATH] = [_absolute(glob) for glob in globs]
    try:
        filters.checked(found)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return found


def _absolute(glob: str) -> str:
    """A glob as the paths of an index have it, which are absolute, but for one that may begin anywhere."""
    if "/" not in glob or glob.startswith("**/"):
        return glob
    # Paths of an index have no links in them.
    plain = re.split(r"[*?]", glob)[0].rpartition("/")[0]
    folder = os.path.realpath(plain) if plain or not glob.startswith("/") else "/"
    return folder.rstrip("/") + glob[len(plain) :] if plain else os.path.join(folder, glob.lstrip("/"))


def as_text(hit: "Hit", matches: list[tuple[int, int]], context: int, colour: bool) -> str:
    """A hit as it is shown: where it is, its score, what it stands under, and the passage."""
    place = f"{shown_path(hit.path)}:{hit.line_start}" if hit.path else hit.id
    heading = " > ".join(one if len(one) <= _HEADING else f"{one[: _HEADING - 3]}..." for one in hit.heading)
    before, after = around(hit, context) if context else ([], [])
    parts, done = [], 0
    for start, end in matches:
        parts += [terminal.passage(hit.text[done:start]), _BOLD, terminal.passage(hit.text[start:end]), _PLAIN]
        done = end
    passage = "".join([*parts, terminal.passage(hit.text[done:])])
    title = f"{_BOLD if colour else ''}{terminal.line(place)}{_PLAIN if colour else ''}  {hit.score:.4f}"
    lines = [f"{title}  {terminal.line(heading)}" if heading else title]
    dim, plain = (_DIM, _PLAIN) if colour else ("", "")
    lines += [f"{dim}{line}{plain}" for line in before] + passage.split("\n")
    lines += [f"{dim}{line}{plain}" for line in after]
    return "\n".join([lines[0], *(f"    {line}" for line in lines[1:])])


def shown_path(path: str) -> str:
    """Relative to the current folder, where it is below that."""
    here = os.getcwd().rstrip("/") + "/"
    return path.removeprefix(here)


def around(hit: "Hit", lines: int) -> tuple[list[str], list[str]]:
    """So many lines of the file before and after a passage; none where it does not stand there any more."""
    try:
        data = Path(hit.path).read_bytes() if hit.path else b""
    except OSError:
        return [], []
    if not data or data[hit.byte_start : hit.byte_end] != hit.text.encode("utf-8", "surrogatepass"):
        return [], []
    above = terminal.passage(data[: hit.byte_start].decode("utf-8", "replace")).split("\n")
    below = terminal.passage(data[hit.byte_end :].decode("utf-8", "replace")).split("\n")
    return above[:-1][-lines:], below[1 : lines + 1]
