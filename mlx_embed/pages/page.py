"""What all pages are made of: the document around them, sections and tables."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

_NUMBER = re.compile(r"-?[\d,.]+(e[-+]\d+)?%?")


def resource(name: str) -> str:
    """A file of this folder, as text."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def document(title: str, body: str, *, style: str = "", script: str = "", data: str = "", connect: str = "") -> str:
    """A whole page; it asks the network for nothing, or for `connect` alone, and its browser would refuse.

    Args:
        title: of the window.
        body: HTML.
        style: CSS beside that of all pages.
        script: JavaScript, run at the end.
        data: HTML elements that hold what the script reads.
        connect: what its script may ask, as a content security policy has it.
    """
    style = resource("style.css") + style
    policy = (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src '{_hash(script)}'{f'; connect-src {connect}' if connect else ''}"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n{data}"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str, name: str = "") -> str:
    """A part of a page with its heading; nothing where all of `parts` are empty."""
    if not any(parts):
        return ""
    return f"<section{f' id={escape(name)!r}' if name else ''}>\n<h2>{escape(title)}</h2>\n{''.join(parts)}\n</section>"


def paragraph(text: str, kind: str = "") -> str:
    """Text, escaped; `kind` is a class of the style."""
    return f"<p{f' class={kind!r}' if kind else ''}>{escape(text)}</p>" if text else ""


def table(rows: Iterable[Mapping[str, Any]], summary: str = "") -> str:
    """A table of rows, whose keys are the columns; with a summary it is folded under that.

    Numbers stand to the right, and what is missing is a dash.
    """
    rows = list(rows)
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {key for key in columns if all(_is_number(row.get(key)) for row in rows)}
    head = "".join(f"<th scope='col'{_right(key in numeric)}>{escape(key)}</th>" for key in columns)
    lines = "".join(
        f"<tr>{''.join(f'<td{_right(key in numeric)}>{cell(row.get(key))}</td>' for key in columns)}</tr>\n"
        for row in rows
    )
    found = (
        f"<div class='scroll' tabindex='0'><table><thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody></table></div>"
    )
    return f"<details><summary>{escape(summary)}</summary>{found}</details>" if summary else found


def cell(value: Any) -> str:
    """A value as a table shows it, escaped."""
    if value is None:
        return "–"
    if isinstance(value, float):
        shown = f"{value:.1e}" if 0 < abs(value) < 0.01 else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
        return escape(shown)
    return escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def listed(sentences: Sequence[str]) -> str:
    """Sentences as a list, escaped."""
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>" if sentences else ""


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _right(right: bool) -> str:
    return " class='n'" if right else ""


def _hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
