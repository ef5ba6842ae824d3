"""What is iterable and still no list of texts: mappings and tables, of any library."""

from collections import ChainMap, UserDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.texts import begun_ahead

TEXTS = ["the wing", "heat"]


class Table:
    """As polars, pyarrow and datasets have tables: columns by name, and rows that iteration may give."""

    def __init__(self, attribute: str) -> None:
        setattr(self, attribute, ["text"])

    def __iter__(self) -> Iterator[str]:
        return iter(TEXTS)


def frame() -> Any:
    return pytest.importorskip("pandas", reason="pandas is not installed").DataFrame({"title": TEXTS, "text": TEXTS})


MADE: dict[str, tuple[Callable[[], Any], str]] = {
    "dict": (lambda: {"a": "the wing"}, "got a dict: pass its values"),
    "no keys": (lambda: {}, "got a dict: pass its values"),
    "UserDict": (lambda: UserDict(a="the wing"), "got a UserDict: pass its values"),
    "ChainMap": (lambda: ChainMap({"a": "the wing"}), "got a ChainMap: pass its values"),
    "DataFrame": (frame, r"got a DataFrame: pass a part of it, frame\['text'\] for example"),
    "columns": (lambda: Table("columns"), "got a Table: pass a part of it"),
    "column_names": (lambda: Table("column_names"), "got a Table: pass a part of it"),
    "no dimensions": (lambda: np.array("the wing"), "got a ndarray"),
}


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document", "token_counts"])
@pytest.mark.parametrize(("make", "message"), MADE.values(), ids=MADE)
def test_no_texts(tiny_bert: EmbeddingModel, method: str, make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message) as found:
        getattr(tiny_bert, method)(make())
    assert str(found.value).split()[0] == ("token_counts" if method == "token_counts" else "encode")


def test_texts_of_a_table_and_a_mapping(tiny_bert: EmbeddingModel) -> None:
    expected = tiny_bert.encode(TEXTS)
    table = frame()
    for texts in (
        table["text"],
        table["text"].sort_index(ascending=False)[::-1],
        table["text"].to_numpy(),
        {"a": TEXTS[0], "b": TEXTS[1]}.values(),
        dict.fromkeys(TEXTS).keys(),
        np.array(TEXTS, dtype=object),
    ):
        assert np.abs(tiny_bert.encode(texts) - expected).max() <= 1e-5


def test_what_is_missing_in_a_table(tiny_bert: EmbeddingModel) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    with pytest.raises(TypeError, match=r"texts\[1\] is a float, where a string is needed"):
        tiny_bert.encode(pandas.Series(["the wing", float("nan")], dtype=object))


class Work:
    """Begun when it is made."""

    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("ahead", [0, 2])
def test_what_has_begun_is_closed(ahead: int) -> None:
    begun: list[Work] = []

    def works() -> Iterator[Work]:
        while True:
            begun.append(Work())
            yield begun[-1]

    taken = begun_ahead(works(), ahead)
    assert next(taken) is begun[0]
    assert len(begun) == ahead + 1
    taken.close()
    assert all(work.closed for work in begun)
