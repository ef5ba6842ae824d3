"""Filters, against the same conditions in Python."""

import fnmatch
from functools import reduce
from typing import Any

import pytest

from mlx_embed.index import Chunk, FileStat, Index, filters
from tests.mlx_embed.index.conftest import at_most

TEXTS: list[dict[str, Any]] = [
    {"year": 1999, "lang": "en", "tags": ["x", "y"]},
    {"year": 2000.5, "lang": "de", "tags": []},
    {"year": 2001, "done": True},
    {"year": "2001", "done": False, "lang": "en"},
    {"nested": {"year": 2001}, "lang": ["en", "fr"], "year": None},
    {},
]


@pytest.fixture
def filled(index: Index) -> Index:
    index.add([str(i) for i in range(len(TEXTS))], ["wing"] * len(TEXTS), TEXTS)
    return index


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ({"year": 2001}, "2"),
        ({"year": 2001.0}, "2"),
        ({"year": "2001"}, "3"),
        ({"year": [1999, "2001"]}, "03"),
        ({"year": {">=": 2000}}, "12"),
        ({"year": {">": 1999, "<": 2001}}, "1"),
        ({"year": {"<": 3000}}, "012"),
        ({"year": {"<=": "2001"}}, "3"),
        ({"year": {"!=": 1999}}, "123"),
        ({"year": {"=": 1999}}, "0"),
        ({"lang": "en"}, "034"),
        ({"lang": "en", "year": {">": 0}}, "0"),
        ({"tags": "y"}, "0"),
        ({"done": True}, "2"),
        ({"done": [True, False]}, "23"),
        ({"nobody": 1}, ""),
        ({"year": {}}, "0123"),
        ({"lang": "x' OR '1'='1"}, ""),
        ({"lang": []}, ""),
        ({}, "012345"),
        ({"$or": [{"lang": "de"}, {"year": 2001}, {"lang": "de"}]}, "12"),
        ({"$and": [{"lang": "en"}, {"year": {">": 0}}]}, "0"),
        ({"$not": {"lang": "en"}}, "125"),
        ({"$not": {"$or": [{"lang": ["en", "de"]}, {"done": True}]}, "$and": []}, "5"),
        ({"$or": []}, ""),
        ({"$not": {}}, ""),
        ({"$id": ["4", "0", "nobody"], "lang": "en"}, "04"),
        ({"$id": "4"}, "4"),
    ],
)
def test_metadata(filled: Index, condition: Any, wanted: str) -> None:
    for mode in ("text", "vector", "hybrid"):
        found = filled.search("wing", 20, mode=mode, filter=condition)
        assert "".join(sorted(hit.id for hit in found)) == wanted
    assert "".join(filled.get(filter=condition)) == wanted
    assert "".join(filled.get(["3", "2", "0"], filter=condition)) == "".join(n for n in wanted if n in "023")


PATHS = ["a.md", "docs/a.md", "docs/b.txt", "docs/deep/c.md", "docs/a_b.md", "docs/a-b.md", "src/[x].py", "ä/ö.md"]
PATHS += ["/srv/deep/c.md", "https://a/x.html"]


@pytest.mark.parametrize(
    ("globs", "wanted"),
    [
        ("docs/*", ["docs/a.md", "docs/b.txt", "docs/a_b.md", "docs/a-b.md"]),
        ("docs/**", ["docs/a.md", "docs/b.txt", "docs/deep/c.md", "docs/a_b.md", "docs/a-b.md"]),
        ("docs/**/*.md", ["docs/a.md", "docs/deep/c.md", "docs/a_b.md", "docs/a-b.md"]),
        ("**/c.md", ["docs/deep/c.md", "/srv/deep/c.md"]),
        ("c.md", ["docs/deep/c.md", "/srv/deep/c.md"]),
        ("/srv/**", ["/srv/deep/c.md"]),
        ("a.md", ["a.md", "docs/a.md"]),
        ("docs/a_b.md", ["docs/a_b.md"]),
        ("docs/a?b.md", ["docs/a_b.md", "docs/a-b.md"]),
        ("src/[x].py", ["src/[x].py"]),
        (["*.py", "ä/*"], ["src/[x].py", "ä/ö.md"]),
        ("nowhere/*", []),
        ("docs/**d*/c*", ["docs/deep/c.md"]),
        ("**/d*/**/*.md", ["docs/a.md", "docs/deep/c.md", "docs/a_b.md", "docs/a-b.md", "/srv/deep/c.md"]),
        ("**d**/c.md", ["docs/deep/c.md", "/srv/deep/c.md"]),
        ("*:/*/x.html", []),
        ("x.html", ["https://a/x.html"]),
        ("https:**/*.html", ["https://a/x.html"]),
    ],
)
def test_paths(index: Index, globs: Any, wanted: list[str]) -> None:
    stat = FileStat(1, 1, "00")
    index.replace_files([(path, stat, [Chunk("wing", path, 0, 1, 1, 1)]) for path in PATHS])
    index.add(["no file"], ["wing"])
    found = index.search("wing", 20, mode="text", filter={"path": globs})
    assert sorted(hit.path for hit in found) == sorted(wanted)
    if isinstance(globs, str) and "[" not in globs and "/" not in globs:
        assert wanted == fnmatch.filter([path for path in PATHS if fnmatch.fnmatch(path.split("/")[-1], globs)], "*")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["year>=2000"], {"year": {">=": 2000}}),
        (["year>=2000", "year < 2001.5"], {"year": {">=": 2000, "<": 2001.5}}),
        (["lang=en"], {"lang": ["en"]}),
        (["lang=en", "lang=de"], {"lang": ["en", "de"]}),
        (['year="2001"'], {"year": ["2001"]}),
        (["done=true"], {"done": [True]}),
        (["path=docs/**", "path=*.md"], {"path": ["docs/**", "*.md"]}),
        (["url=http://x?a=b"], {"url": ["http://x?a=b"]}),
        (["lang!=en"], {"lang": {"!=": "en"}}),
        (["x=-1", "x=+.5", "x=2.", "x=1e3", "x=0"], {"x": [-1, 0.5, 2.0, 1000.0, 0]}),
        (["x=007", "x=1_000", "x=nan", "x=inf", "x=1e999"], {"x": ["007", "1_000", "nan", "inf", "1e999"]}),
        (['"path"=a', '"path"=b', "path=*.md"], {"$metadata": {"path": ["a", "b"]}, "path": ["*.md"]}),
        (['"a=b" >= 3', '"$id"!=x', '""=1'], {"$metadata": {"a=b": {">=": 3}, "$id": {"!=": "x"}, "": [1]}}),
        ([], {}),
    ],
)
def test_conditions_in_words(words: list[str], wanted: Any) -> None:
    assert filters.parsed(words) == wanted
    filters.checked(wanted)


@pytest.mark.parametrize("words", [["year"], ["=x"], [">=3"], ["year=1", "year>3"], ['"a"=1', '"a">3']])
def test_conditions_in_words_that_are_none(words: list[str]) -> None:
    with pytest.raises(ValueError, match="filter"):
        filters.parsed(words)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("year=3", "filter is a str"),
        ({1: 2}, "key 1 is an int"),
        ({"year": None}, "year has None"),
        ({"year": {"~": 1}}, "'~', which is not one of"),
        ({"year": [[1]]}, r"year has \[1\]"),
        ({"year": 2**63}, "year has"),
        ({"path": 3}, "path is 3"),
        ({"year": float("nan")}, "year has nan"),
        ({"$or": {"year": 1}}, r"\$or is .*, where a list of filters is needed"),
        ({"$and": [3]}, r"\$and is \[3\], where a list of filters"),
        ({"$not": [{}]}, r"\$not is \[{}\], where a filter is needed"),
        ({"$not": {"$or": [{"year": None}]}}, "year has None"),
        ({"$id": 3}, r"\$id is 3, where an id or a list"),
        ({"$nor": []}, r"\$nor is not one of .*\{'\$metadata': \{'\$nor': \.\.\.\}\}"),
        ({"$metadata": 3}, r"\$metadata is 3, where a mapping"),
        ({"$metadata": {"path": None}}, "path has None"),
        ({"$metadata": {3: 1}}, "key 3 is an int"),
        ({"$metadata": {"\ud800": 1}}, "key has .*, which is no Unicode text"),
        ({"lang": "\ud800"}, "lang has .*, which is no Unicode text"),
        ({"lang": {"<": "\ud800"}}, "lang has .*, which is no Unicode text"),
        ({"\ud800": 1}, "key has .*, which is no Unicode text"),
        ({"$id": ["a", "\ud800"]}, r"\$id has .*, which is no Unicode text"),
        ({"path": "\ud800*"}, "path has .*, which is no Unicode text"),
        (reduce(lambda inner, _: {"$not": inner}, range(100), {"year": 1}), "to a depth of more than 100"),
        (reduce(lambda inner, _: {"$or": [inner]}, range(5000), {"year": 1}), "to a depth of more than 100"),
    ],
)
def test_bad_filters(index: Index, condition: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        index.search("wing", filter=condition)


KEYS = ["$id", "$and", "$metadata", "path", "a.b", "", "a=b", " x ", "ключ", 'q"q', "$"]


@pytest.mark.parametrize("key", KEYS)
def test_metadata_of_any_name_is_found(index: Index, key: str) -> None:
    index.add(["1", "2", "3"], ["wing"] * 3, [{key: 5}, {key: 6}, {"other": 5}])
    assert set(index.get(filter={"$metadata": {key: 5}})) == {"1"}
    assert set(index.get(filter={"$metadata": {key: {">": 5}, "other": []}})) == set()
    assert set(index.get(filter={"$not": {"$metadata": {key: [5, 6]}}})) == {"3"}
    if '"' not in key:
        assert set(index.get(filter=filters.parsed([f'"{key}">=6']))) == {"2"}


def test_attributes_go_with_their_texts(filled: Index) -> None:
    filled.upsert(["0"], ["wing"], [{"lang": "nl"}])
    filled.delete(["3"])
    assert [hit.id for hit in filled.search("wing", mode="text", filter={"lang": ["en", "nl"]})] == ["0", "4"]
    filled.check()


def test_as_many_alternatives_and_as_deep_as_can_be(filled: Index) -> None:
    """More than SQLite takes in one query."""
    expected = [hit.id for hit in filled.search("wing", mode="text", filter={"lang": "nl"})]
    many = ["nl", *map(str, range(300_000))]
    assert [hit.id for hit in filled.search("wing", mode="text", filter={"lang": many})] == expected
    deep: Any = {"lang": "nl"}
    for _ in range(98):
        deep = {"$not": deep}
    assert [hit.id for hit in filled.search("wing", mode="text", filter=deep)] == expected


@pytest.mark.parametrize("query", [None, 3, 1.5])
def test_a_query_that_is_no_text(index: Index, query: Any) -> None:
    with pytest.raises(TypeError, match=r"query is (an int|a .*), where a string or a list"):
        index.search(query)


@pytest.mark.parametrize("glob", ["*a" * 30 + "z", "**/" * 30 + "z", "**a" * 30 + "z", "**/*a*/" * 10 + "z"])
def test_many_stars_take_no_time(index: Index, glob: str) -> None:
    path = "/".join(["a" * 40] * 12)
    index.replace_files([(path, FileStat(1, 1, "00"), [Chunk("wing", path, 0, 1, 1, 1)])])
    with at_most(seconds=20):
        assert index.get(filter={"path": ["/".join(["*"] * 12), glob]}).keys() == {f"{path}#0"}
        assert not index.get(filter={"path": glob})
