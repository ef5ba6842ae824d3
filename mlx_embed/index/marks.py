"""Where the words of a query stand in a passage."""

import re
import sqlite3
import unicodedata
from contextlib import closing

from mlx_embed.words import words_of

# Words that most passages have: they are marked only where a query has no others.
_COMMON = set(
    words_of(
        "a an and are as at be but by can do does for from had has have how i if in is it its me my no not of on or our"
        " so such than that the their them then there these they this to was we were what when where which who why"
        " will with you your",
    )
)
_OPEN, _CLOSE = "\ue000", "\ue001"


def marks(query: str, text: str) -> list[tuple[int, int]]:
    """The words of `text` that have the stem of a word of `query`: first and last (exclusive) character, in order.

    SQLite's FTS5 finds them, with the tokenizer that finds passages by their words. Nothing where there is no FTS5.
    """
    words = {word.lower() for word in words_of(query)}
    words = words - _COMMON or words
    if not words or _OPEN in text or _CLOSE in text:
        return []
    wanted = " OR ".join(f'"{word}"' for word in sorted(words))
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.execute("CREATE VIRTUAL TABLE passage USING fts5(text, tokenize = 'porter unicode61')")
        except sqlite3.OperationalError:
            return []
        database.execute("INSERT INTO passage VALUES (?)", (text.replace("\0", " "),))
        row = database.execute(
            "SELECT highlight(passage, 0, ?, ?) FROM passage WHERE passage MATCH ?", (_OPEN, _CLOSE, wanted)
        ).fetchone()
    found, place, start = [], 0, 0
    for part in re.split(f"([{_OPEN}{_CLOSE}])", row[0] if row else ""):
        if part == _OPEN:
            start = place
        elif part == _CLOSE:
            found.append((start, _with_marks(text, place)))
        else:
            place += len(part)
    return found


def _with_marks(text: str, end: int) -> int:
    """Where a word ends: FTS5 leaves out the vowel signs behind its last letter."""
    while end < len(text) and unicodedata.category(text[end]).startswith("M"):
        end += 1
    return end
