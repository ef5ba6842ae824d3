"""Patterns of names in the language of .gitignore files, which https://git-scm.com/docs/gitignore describes."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_CLASSES = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": r" \t\n\r",
    "xdigit": "0-9a-fA-F",
    "punct": r"!-/:-@\[-`{-~",
    "blank": r" \t",
    "graph": "!-~",
    "print": " -~",
    "cntrl": r"\0-\x1f\x7f",
}


# What takes any number of characters: of a name; any; whole folders, or none; and of what is below a folder, one at
# least.
STAR, ANY, FOLDERS, BELOW = "[^/]*", ".*", "(?:.*/)?", ".+"
_LEAST = {STAR: "[^/]*?", ANY: ".*?", FOLDERS: "(?:.*?/)??"}


def expression(tokens: Sequence[str]) -> str:
    """The regular expression of tokens: each is one of the four above, or takes one character.

    One that has another behind it takes the least it can, which leaves that one the most to choose from, and nothing
    else is tried: otherwise twenty stars would take years. What a star takes ends at a "/", so that it is settled by
    the next of any kind; what crosses it is settled by the next that does too, with all stars between them.
    """
    parts = list(tokens)
    next_wild: int | None = None
    next_across: int | None = None
    for place in reversed(range(len(tokens))):  # so that of two that end together the inner one does first
        token = tokens[place]
        if token not in (STAR, ANY, FOLDERS, BELOW):
            continue
        end = next_wild if token == STAR else next_across
        if end is not None:
            parts[place] = f"(?=(?P<w{place}>{_LEAST[token]}"
            parts[end - 1] += f"))(?P=w{place})"
        next_wild = place
        next_across = next_across if token == STAR else place
    return "".join(parts)


class _Rule(NamedTuple):
    """One line: what it matches, whether of folders alone, whether by the last name alone, and what it says then."""

    matches: re.Pattern[str]
    folders_only: bool
    name_only: bool
    takes: bool


class Patterns:
    """Some lines of a .gitignore file, for paths relative to its folder; bytes are compared, as git does."""

    def __init__(self, lines: Iterable[str]) -> None:
        """A line that git would pass over is passed over."""
        self._rules = [rule for line in lines if (rule := _rule(_bytes(line))) is not None]
        self._rules.reverse()

    def says(self, path: str, *, is_folder: bool) -> bool | None:
        """What the last line that matches this path says: True of a pattern, False of one with "!", None of none."""
        path = _bytes(path)
        name = path.rpartition("/")[2]
        for rule in self._rules:
            if (is_folder or not rule.folders_only) and rule.matches.fullmatch(name if rule.name_only else path):
                return rule.takes
        return None

    def takes(self, path: str) -> bool:
        """Whether a file is taken: it, or else the nearest folder above it of which there is something said."""
        parts = path.split("/")
        for length in range(len(parts), 0, -1):
            said = self.says("/".join(parts[:length]), is_folder=length < len(parts))
            if said is not None:
                return said
        return False


def _bytes(text: str) -> str:
    """A character a byte, since git compares bytes: "?" is one, and "\u00e9" two."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def _rule(line: str) -> _Rule | None:
    line = line.removesuffix("\r")
    bare = line.rstrip(" ")
    escaped = bare != line and (len(bare) - len(bare.rstrip("\\"))) % 2  # a backslash of its own keeps one space
    line = f"{bare} " if escaped else bare
    if not line or line.startswith("#"):
        return None
    takes = not line.startswith("!")
    pattern = line if takes else line[1:]
    folders_only = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    name_only = "/" not in pattern
    try:
        found = re.compile(_regex(pattern.removeprefix("/")), re.DOTALL)
    except (ValueError, re.error):
        return None
    return _Rule(found, folders_only, name_only, takes) if pattern else None


def _regex(pattern: str) -> str:
    """The regular expression of a pattern.

    Raises:
        ValueError: a bracket that is not closed, or a backslash at the end: git's never match.
    """
    out: list[str] = []
    i = 0
    while i < len(pattern):
        if pattern.startswith("**/", i) and (i == 0 or pattern[i - 1] == "/"):
            out.append(FOLDERS)
            i += 3
        elif i + 2 == len(pattern) and pattern.startswith("**", i) and (i == 0 or pattern[i - 1] == "/"):
            out.append(BELOW)
            i += 2
        elif pattern[i] == "*":
            out.append(STAR)
            while pattern.startswith("*", i):
                i += 1
        elif pattern[i] == "?":
            out.append("[^/]")
            i += 1
        elif pattern[i] == "[":
            part, i = _bracket(pattern, i + 1)
            out.append(part)
        else:
            i += pattern[i] == "\\"
            if i == len(pattern):
                raise ValueError("a backslash at the end")
            out.append(re.escape(pattern[i]))
            i += 1
    return expression(out)


def _bracket(pattern: str, i: int) -> tuple[str, int]:
    """The expression of the set of characters that begins before `i`, and where it ends."""
    negated = pattern[i : i + 1] in ("!", "^")
    i += negated
    items, first = "", i
    while pattern[i : i + 1] != "]" or i == first:
        if i >= len(pattern):
            raise ValueError("a bracket that is not closed")
        if (named := re.compile(r"\[:(\w+):\]").match(pattern, i)) is not None:
            items += _CLASSES.get(named[1], "")
            i = named.end()
            continue
        low, i = _character(pattern, i)
        high = low
        if pattern[i : i + 1] == "-" and pattern[i + 1 : i + 2] not in ("]", ""):
            high, i = _character(pattern, i + 1)
        if low <= high:
            items += f"{re.escape(low)}-{re.escape(high)}"
    if not items:
        return ("[^/]" if negated else "(?!)"), i + 1
    return f"(?!/)[{'^' if negated else ''}{items}]", i + 1


def _character(pattern: str, i: int) -> tuple[str, int]:
    i += pattern[i] == "\\"
    if i >= len(pattern):
        raise ValueError("a bracket that is not closed")
    return pattern[i], i + 1
