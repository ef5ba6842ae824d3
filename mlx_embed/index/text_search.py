"""The texts that have a query's words: FTS5, with Porter's stems, ranked by BM25."""

import re
from sqlite3 import Connection
from typing import TypeAlias

from mlx_embed.index.blocks import Numbers

# A text's number and its score, best first.
Found: TypeAlias = list[tuple[int, float]]

_WORD = re.compile(r"\w+")
# FTS5 goes through the list of every word; longer queries are texts, of which this is enough.
MOST_WORDS = 256


def match(query: str) -> str:
    """A query as FTS5 takes it: its words, each quoted, joined by OR; "" where it has none.

    A word that is there twice counts twice, as BM25 has it.
    """
    return " OR ".join(f'"{word}"' for word in _WORD.findall(query)[:MOST_WORDS])


def search(connection: Connection, query: str, k: int, wanted: Numbers | None = None) -> Found:
    """At least the k texts with the best BM25, and all that are as good as the last of these.

    Args:
        connection: of the index, in a transaction.
        query: any text.
        k: how many.
        wanted: the numbers of the texts that count; None: all.
    """
    words = match(query)
    if not words:
        return []
    among = ""
    if wanted is not None:
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS wanted(number INTEGER PRIMARY KEY)")
        connection.execute("DELETE FROM wanted")
        connection.executemany("INSERT INTO wanted VALUES (?)", ((number,) for number in wanted.tolist()))
        among = "AND rowid IN (SELECT number FROM wanted)"
    command = f"SELECT rowid, bm25(words) AS cost FROM words WHERE words MATCH ? {among} ORDER BY cost LIMIT ?"
    limit = k + 16
    while True:
        found = connection.execute(command, (words, limit)).fetchall()
        if len(found) < limit or found[-1][1] > found[k - 1][1]:
            last = found[min(k, len(found)) - 1][1] if found else 0.0
            return [(number, -cost) for number, cost in found if cost <= last]
        limit *= 4
