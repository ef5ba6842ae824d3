"""Where the sections of a text begin: headings of Markdown and reStructuredText, definitions of source code."""

import ast
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Section(NamedTuple):
    """A place where another section begins.

    Attributes:
        start: the first character.
        level: 1 is the strongest border.
        path: the headings or definitions that the text from here on stands under, outermost first.
    """

    start: int
    level: int
    path: tuple[str, ...]


# A heading: where it begins, its level, its title.
Heading = tuple[int, int, str]

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1*[ \t]*")
_NOT_A_PARAGRAPH = re.compile(r"\s*$| {4}|\t| {0,3}(?:>|[-*+][ \t]|\d{1,9}[.)][ \t]|\|)")
_MODIFIERS = (
    r"(?:(?:pub(?:\([^)]*\))?|public|private|protected|internal|static|final|abstract|sealed|open|override"
    r"|virtual|inline|constexpr|extern(?: *\"[^\"]*\")?|unsafe|async|export|default|declare|data|const|partial"
    r"|suspend|local|__global__|__device__|template *<[^>]*>|kernel) +)*"
)
_NAMED = (
    r"(?:class|struct|enum|union|trait|interface|impl|mod|module|namespace|protocol|extension|object|record|type"
    r"|fn|func|fun|function\*?|def|defmodule|defp|sub)"
)
_DEFINITION = re.compile(
    rf"(?P<indent>[ \t]*)(?:{_MODIFIERS}(?P<kind>{_NAMED})\b *(?P<name>(?:\([^)]*\) *)?[^\s({{:;=][^({{:;=]*)"
    # A function of C's kind: a type, a name, parentheses, and no end of a statement.
    r"|(?:[A-Za-z_][\w:<>,\[\]]*[ *&]+)+(?P<function>[A-Za-z_~][\w:~]*) *\([^;]*$"
    rf"|{_MODIFIERS}(?:const|let|var) +(?P<arrow>\w+) *= *(?:async *)?(?:\([^)]*\)|\w+) *=>"
    r"|(?P<shell>[\w-]+) *\(\) *\{)"
)
_STATEMENTS = re.compile(r"\s*(?:return|else|if|for|while|switch|case|throw|new|delete|await|yield|do|in|not|and|or)\b")
# Characters of a line that can begin a definition: what is longer was made by a program.
_LONGEST = 400
_END = re.compile(r"[ \t]*(?:\}|end\b)")
_LEADING = re.compile(r"[ \t]*(?://|/\*|\*|#|@|--)")


def of(text: str, kind: str) -> list[Section]:
    """The sections of a text of this kind, as `documents.kind_of` names it; none of plain text."""
    if kind == "markdown":
        return nested(_markdown(text))
    if kind == "rst":
        return nested(_rst(text))
    if kind == "python":
        return _python(text)
    return _code(text) if kind == "code" else []


def nested(headings: Iterable[Heading]) -> list[Section]:
    """Sections of headings, each under the nearest before it that is of a stronger level."""
    above: list[tuple[int, str]] = []
    found = []
    for start, level, title in headings:
        while above and above[-1][0] >= level:
            above.pop()
        above.append((level, title))
        found.append(Section(start, level, tuple(name for _, name in above if name)))
    return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line's first character, and the line without its end."""
    start = 0
    for line in text.split("\n"):
        yield start, line.removesuffix("\r")
        start += len(line) + 1


def _markdown(text: str) -> Iterator[Heading]:
    fence = ""
    before: tuple[int, str] | None = None  # the line before, where it may be a title with a line under it
    lines = list(_lines(text))
    first = 0
    if lines[0][1] == "---":  # front matter, which is no text
        first = next((i + 1 for i, (_, line) in enumerate(lines[1:], start=1) if line in ("---", "...")), 0)
    for start, line in lines[first:]:
        if fence:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        if (found := _FENCE.fullmatch(line)) and ("`" not in found[2] or found[1][0] == "~"):
            fence, before = found[1], None
        elif found := _ATX.fullmatch(line):
            yield start, len(found[1]), (found[2] or "").strip()
            before = None
        elif before and (found := _SETEXT.fullmatch(line)):
            yield before[0], 1 if found[1][0] == "=" else 2, before[1]
            before = None
        elif _NOT_A_PARAGRAPH.match(line):
            before = None
        else:
            before = (start, line.strip()) if before is None else (before[0], f"{before[1]} {line.strip()}")


def _rst(text: str) -> Iterator[Heading]:
    """Titles with a line of punctuation under them, and over them too; a style's level is its order of appearance."""
    styles: list[tuple[str, bool]] = []
    lines = list(_lines(text))
    row = 0
    while row + 1 < len(lines):
        start, line = lines[row]
        over = _ADORNMENT.fullmatch(line) is not None
        title, under = (lines[row + 1][1], row + 2) if over else (line, row + 1)
        found = _ADORNMENT.fullmatch(lines[under][1]) if under < len(lines) else None
        adorned = (
            found is not None
            and title.strip() != ""
            and _ADORNMENT.fullmatch(title) is None
            and (over or not title[0].isspace())
            and len(lines[under][1].rstrip()) >= min(len(title.rstrip()), 4)
            and (not over or lines[under][1].rstrip() == line.rstrip())
            and (over or row == 0 or not lines[row - 1][1].strip())
        )
        if not adorned:
            row += 1
            continue
        style = (lines[under][1][0], over)
        if style not in styles:
            styles.append(style)
        yield start, styles.index(style) + 1, title.strip()
        row = under + 1


def _python(text: str) -> list[Section]:
    """Functions and classes, and where what follows them begins; none in a file that this Python cannot parse."""
    if "\r" in text.replace("\r\n", ""):  # which ends a line for Python's parser, and not here
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the file's own code
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    starts = [start for start, _ in _lines(text)]
    found: dict[int, Section] = {}

    def visit(body: Sequence[ast.stmt], path: tuple[str, ...]) -> None:
        for node in body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            kind = "class" if isinstance(node, ast.ClassDef) else "def"
            inner = (*path, f"{kind} {node.name}")
            found[starts[line]] = Section(starts[line], len(inner), inner)
            visit(node.body, inner)
            end = node.end_lineno or len(starts)
            if end < len(starts):
                found[starts[end]] = Section(starts[end], len(inner), path)

    visit(tree.body, ())
    return [found[start] for start in sorted(found)]


def _code(text: str) -> list[Section]:
    """Definitions by the look of their first line, each until one that is not further indented."""
    above: list[tuple[int, str]] = []
    found: list[Section] = []
    comments: int | None = None  # where the comments and attributes right in front begin
    ended = False
    for start, line in _lines(text):
        indent = len(line) - len(line.lstrip())
        match = None if len(line) > _LONGEST or _STATEMENTS.match(line) else _DEFINITION.match(line)
        if match:
            while above and above[-1][0] >= indent:
                above.pop()
            above.append((indent, _title(match)))
            path = tuple(name for _, name in above)
            found.append(Section(start if comments is None else comments, len(path), path))
            ended = False
        elif ended and line.strip() and not _END.match(line):
            found.append(Section(start if comments is None else comments, len(above) + 1, tuple(n for _, n in above)))
            ended = False
        if above and indent == above[-1][0] and _END.match(line):
            above.pop()
            ended = True
        if not _LEADING.match(line):
            comments = None
        elif comments is None:
            comments = start
    merged = {section.start: section for section in found}
    return [merged[start] for start in sorted(merged)]


def _title(match: re.Match[str]) -> str:
    kind, name = match["kind"], match["name"]
    return f"{kind} {name.strip()}" if kind else str(match["function"] or match["arrow"] or match["shell"])
