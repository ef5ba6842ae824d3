"""The texts that have a query's words: FTS5, with Porter's stems, ranked by BM25."""

import math
from collections.abc import Iterator, Sequence
from sqlite3 import Connection
from typing import TypeAlias

from mlx_embed.index.blocks import Numbers
from mlx_embed.words import words_of

# A text's number and its score, best first.
Found: TypeAlias = list[tuple[int, float]]

# FTS5 goes through the list of every word; longer queries are texts, of which this is enough.
MOST_WORDS = 256
# FTS5's BM25: a word of weight w adds less than 2.2 w (k1 is 1.2) however often it is there, and no weight is less than
# this.
_MOST, _LEAST_WEIGHT = 2.2, 1e-6
# Texts that have a query's words, below which all of them are ranked.
RANKED = 2000


def match(words: Sequence[str]) -> str:
    """Words as FTS5 takes them, each quoted, joined by OR. One that is there twice counts twice, as BM25 has it."""
    return " OR ".join(f'"{word}"' for word in words)


def search(connection: Connection, query: str, k: int, wanted: Numbers | None = None) -> Found:
    """At least the k texts with the best BM25, and all that are as good as the last of these.

    To rank a text costs some thirty times as much as to come by it, and many have only words that most texts have. So
    those with the rarer words are ranked first: often their scores are out of reach for the others.

    Args:
        connection: of the index, in a transaction.
        query: any text.
        k: how many.
        wanted: the numbers of the texts that count; None: all.
    """
    words = words_of(query)[:MOST_WORDS]
    if not words:
        return []
    if wanted is not None:
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS wanted(number INTEGER PRIMARY KEY)")
        connection.execute("DELETE FROM wanted")
        connection.executemany("INSERT INTO wanted VALUES (?)", ((number,) for number in wanted.tolist()))
    for rare, reach in _steps(connection, words, k):
        found = _ranked(connection, words, k, rare, wanted is not None)
        if len(found) >= k and found[k - 1][1] > reach:
            break
    return found


def _steps(connection: Connection, words: Sequence[str], k: int) -> Iterator[tuple[Sequence[str], float]]:
    """More and more of the words, the rarest first, and a score that a text with none of these cannot reach."""
    counts = {}
    for word in words:
        if word not in counts:
            found = connection.execute("SELECT count(*) FROM words WHERE words MATCH ?", (match([word]),)).fetchone()
            counts[word] = int(found[0])
    if sum(counts.values()) > RANKED:
        (most,) = connection.execute("SELECT max(number) FROM chunk").fetchone()  # no fewer than there are texts
        # At least FTS5's own, times how often the query has the word; a word that is there once adds about as much.
        weights = {
            word: max(math.log((max(most - count, 0) + 0.5) / (count + 0.5)), _LEAST_WEIGHT) * words.count(word)
            for word, count in counts.items()
        }
        by_count, size = sorted(counts, key=lambda word: counts[word]), 0
        for place, word in enumerate(by_count[:-1], start=1):
            size += counts[word]
            rare, others = by_count[:place], by_count[place:]
            reach = _MOST * sum(weights[other] for other in others)
            # Where the next word has as many texts as all so far, and the others are likely to be out of reach.
            if size >= k and counts[others[0]] >= size and reach < sum(weights[one] for one in rare):
                yield rare, reach
    yield (), -math.inf


def _ranked(connection: Connection, words: Sequence[str], k: int, rare: Sequence[str], filtered: bool) -> Found:
    """Of the texts that have one of the `rare` words, or any where there are none, the k best and what is as good."""
    # The "+" keeps SQLite from asking FTS5 for each number apart, which goes through the words' lists each time.
    where, values = "words MATCH ?", [match(words)]
    if filtered:
        where += " AND +rowid IN (SELECT number FROM wanted)"
    if rare:
        where += " AND +rowid IN (SELECT rowid FROM words WHERE words MATCH ?)"
        values.append(match(rare))
    command = f"SELECT rowid AS number, bm25(words) AS cost FROM words WHERE {where}"
    found = connection.execute(f"{command} ORDER BY cost LIMIT ?", (*values, k + 16)).fetchall()
    last = found[min(k, len(found)) - 1][1] if found else 0.0
    if len(found) == k + 16 and found[-1][1] == last:
        found = connection.execute(f"SELECT * FROM ({command}) WHERE cost <= ?", (*values, last)).fetchall()
    return sorted(((number, -cost) for number, cost in found if cost <= last), key=lambda pair: -pair[1])
