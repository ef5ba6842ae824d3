"""The words of a text: for a search by words, for what is marked in a passage, and for the names of clusters."""

import re
import unicodedata
from functools import cache


def words_of(text: str) -> list[str]:
    """Runs of letters, digits and underscores, each with its marks: accents that stand apart, and vowel signs.

    `\\w` alone parts a word at each of them: "cafés" whose accent is a character of its own, and most words of Hindi.
    """
    return _word().findall(text)


@cache
def _word() -> re.Pattern[str]:
    marks = (chr(i) for i in range(0x300, 0x20000) if unicodedata.category(chr(i)).startswith("M"))
    return re.compile(rf"\w[\w{''.join(marks)}\U000e0100-\U000e01ef]*")
