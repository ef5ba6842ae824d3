"""Words: what is found without ranking every text is what ranking every text finds."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.index import Index, text_search
from tests.mlx_embed.index.conftest import names, vectors

COUNT = 3000


@pytest.fixture(scope="module")
def zipf(model: EmbeddingModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Texts of words of which the n-th is in one of n, as in a language."""
    dice = np.random.default_rng(0)
    share = 1 / np.arange(1, 2001)
    lengths = dice.integers(5, 60, COUNT)
    texts = [" ".join(f"w{n}" for n in dice.choice(2000, length, p=share / share.sum())) for length in lengths]
    with Index.create(tmp_path_factory.mktemp("zipf") / "index", model) as index:
        index.add(names(COUNT), texts, vectors=vectors(COUNT))
        index.upsert(names(20), ["w1 w7"] * 20, vectors=vectors(20))  # equal scores
        yield index


def plain(connection: Any, query: str, k: int, wanted: Any) -> list[tuple[int, float]]:
    """All texts, ranked by FTS5 itself."""
    command = "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ?"
    every = connection.execute(command, (" OR ".join(f'"{word}"' for word in query.split()),)).fetchall()
    found = sorted((one for one in every if wanted is None or one[0] in wanted), key=lambda one: (-one[1], one[0]))
    return [one for one in found if one[1] >= found[min(k, len(found)) - 1][1]]


def asked(seed: int) -> str:
    dice = np.random.default_rng(seed)
    return " ".join(f"w{int(2000 ** dice.random())}" for _ in range(dice.integers(1, 9)))


@pytest.mark.parametrize("query", [*map(asked, range(40)), "w1", "w1 w7", "w0 w1 w2", "w0 w0 w900 W900", "w0 nowhere"])
def test_the_best_are_those_of_all(zipf: Index, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_search, "RANKED", 0)
    with zipf._store.reading() as (connection, _):
        for k in (1, 10, 60):
            for wanted in (None, np.arange(1, COUNT + 20, 7)):
                found = text_search.search(connection, query, k, wanted)
                assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
                assert sorted(found, key=lambda one: (-one[1], one[0])) == plain(connection, query, k, wanted)


def statements(index: Index, query: str, wanted: Any = None) -> list[str]:
    """What SQLite is asked for a query."""
    said: list[str] = []
    with index._store.reading() as (connection, _):
        connection.set_trace_callback(said.append)
        text_search.search(connection, query, 10, wanted)
        connection.set_trace_callback(None)
        ranking = [one for one in said if "bm25" in one]
        plans = [step[3] for one in ranking for step in connection.execute(f"EXPLAIN QUERY PLAN {one}").fetchall()]
    assert not [step for step in plans if "VIRTUAL TABLE INDEX 0:=" in step], plans
    return ranking


def test_texts_with_common_words_alone_are_not_ranked(zipf: Index) -> None:
    ranked = statements(zipf, "w0 w2 w60")
    assert len(ranked) == 1
    assert "MATCH '\"w60\"'" in ranked[0]
    assert '"w60"\')' not in "".join(statements(zipf, "w900 w901"))  # there are few


def test_a_filter_is_no_search_for_each_text(zipf: Index) -> None:
    """FTS5 would go through the lists of all words once for each number that it is asked for."""
    assert len(statements(zipf, "w0 w2", np.arange(1, 2000))) == 1


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("resume\u0301", ["a"]),  # an accent that is a character of its own
        ("A\u030angstro\u0308m", ["b"]),
        ("हिन्दी", ["c"]),  # vowel signs, at which \\w would part it
        ("हनद", ["d"]),
        ("\u0301", []),
        ("_ stall", ["a"]),
    ],
)
def test_marks_are_part_of_a_word(index: Index, query: str, found: list[str]) -> None:
    texts = ["a résumé of the stall", "Ångström, i.e. re sume", "हिन्दी", "हनद दी नि हि"]
    index.add(list("abcd"), texts, vectors=vectors(4))
    assert [hit.id for hit in index.search(query, mode="text")] == found
