"""Texts and ids from files of every format, and what is refused, with its place."""

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mlx_embed.records import reading
from mlx_embed.records.reading import records, source


def read(path: Path, *fields: str, kind: str | None = None, id_field: str | None = None) -> list[tuple[str, Any]]:
    return [record[:2] for record in records(source(str(path), kind, fields, id_field))]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\r\n\r\nb", ["a", "", "b"]),
        ("\ufeffa\n \n", ["a", " "]),
        ("a\u2028b\x0bc\rd\n", ["a\u2028b\x0bc\rd"]),
        ("", []),
        ("\n", [""]),
    ],
)
def test_a_text_a_line(content: str, texts: list[str], tmp_path: Path) -> None:
    path = written(tmp_path / "texts.md", content)
    assert read(path) == [(text, None) for text in texts]
    assert reading.count(source(str(path))) == len(texts)


def test_jsonl(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b", "id": 1, "title": "t"}, {"text": "", "id": 2, "title": None}, {"id": 3, "title": "u"}]
    rows += [{"text": "v", "id": 4, "title": ""}]
    path = written(tmp_path / "x.ndjson", "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    assert read(path, "title", "text") == [("t a\u2028b", 1), ("", 2), ("u", 3), ("v", 4)]
    assert read(path, "title", "text", id_field="id")[0] == ("t a\u2028b", 1)


def test_json_is_read_as_what_is_said(tmp_path: Path) -> None:
    path = written(tmp_path / "x.JSON", '{"text": "a"}\n')
    assert read(path, "text") == read(path, kind="jsonl") == [("a", None)]
    assert read(path, kind="lines") == [('{"text": "a"}', None)]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"_id": "a", "id": "b"}, "a"),
        ({"id": "b"}, "b"),
        ({"_id": None, "id": 7}, 7),
        ({"key": "c"}, None),
    ],
)
def test_ids_that_are_not_named(row: dict[str, Any], found: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", json.dumps(row | {"text": "t"}))
    assert read(path) == [("t", found)]


def test_csv(tmp_path: Path) -> None:
    content = 'id,text,other\n1,"a, ""b""\nc",x\n\n2,' + "long " * 50_000 + ",\n"
    assert read(written(tmp_path / "x.csv", content)) == [('a, "b"\nc', "1"), ("long " * 50_000, "2")]
    assert read(written(tmp_path / "x.tsv", "text\tb\na, b\tc\n")) == [("a, b", None)]
    assert read(written(tmp_path / "x.dat", "text\na\n"), kind="csv") == [("a", None)]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("x.jsonl.gz", '\ufeff{"text": "a\u2028", "id": 1}\n\n{"text": "b", "id": 2}', [("a\u2028", 1), ("b", 2)]),
        ("x.csv.GZ", 'text\n"a\nb"\n', [("a\nb", None)]),
        ("x.tsv.gz", "text\tb\na, b\tc\n", [("a, b", None)]),
        ("x.txt.gz", "a\r\n\nb", [("a", None), ("", None), ("b", None)]),
        ("x.gz", "a\n", [("a", None)]),
        ("x.jsonl.gz", "", []),
    ],
)
def test_what_gzip_has_packed(name: str, content: str, found: list[Any], tmp_path: Path) -> None:
    path = written(tmp_path / name, gzip.compress(content.encode()))
    assert read(path) == found
    assert reading.count(source(str(path))) is None, "unpacking it twice would take long"
    half = len(content.encode()) // 2  # as `cat a.gz b.gz` makes it
    path.write_bytes(gzip.compress(content.encode()[:half]) + gzip.compress(content.encode()[half:]))
    assert read(path) == found


def test_places_and_damage_in_what_gzip_has_packed(tmp_path: Path) -> None:
    data = gzip.compress(b'{"text": "a"}\n' * 4000 + b'{"text": 1}\n')
    path = written(tmp_path / "x.jsonl.gz", data)
    with pytest.raises(ValueError, match=r"x\.jsonl\.gz:4001 has an int as 'text'"):
        read(path)
    for damaged in (b'{"text": "a"}\n', data[:-20], data[:10] + b"\xff" * 20 + data[30:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.jsonl\.gz is not gzip, as its name says, or damaged: "):
            read(path)
    with pytest.raises(ValueError, match=r"x\.json\.gz may have a JSON object a line"):
        read(written(tmp_path / "x.json.gz", data))


@pytest.mark.parametrize("name", ["x.jsonl.zst", "x.txt.xz", "x.csv.bz2", "x.zip", "x.tar.gz", "x.tgz"])
def test_what_is_packed_otherwise(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name} is packed: unpack it, or"):
        read(written(tmp_path / name, b"a\n"))


def test_parquet_is_not_packed_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Parquet cannot be read while it is packed, .*; unpack .*x\.parquet\.gz"):
        read(written(tmp_path / "x.parquet.gz", b""))


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason='pyarrow is not installed: pip install ".[parquet]"')
    from pyarrow import parquet

    table = pa.table({"id": ["x", "y"], "text": pa.array(["a", None], pa.large_string()), "title": ["t", "u"]})
    parquet.write_table(table, tmp_path / "x.parquet")
    path = tmp_path / "x.parquet"
    assert read(path, "title", "text") == [("t a", "x"), ("u", "y")]
    assert reading.count(source(str(path))) == 2
    with pytest.raises(ValueError, match=r"x\.parquet, row 1 has null as 'text', where"):
        read(path)
    with pytest.raises(ValueError, match=r"has no column 'body'; it has id, text, title"):
        read(path, "body")
    with pytest.raises(ValueError, match="is not Parquet"):
        read(written(tmp_path / "y.parquet", "no"))


@pytest.mark.parametrize("compression", ["snappy", "none"])
def test_parquet_that_is_damaged_is_named(compression: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "x.parquet"
    texts = [f"{i} of many texts" for i in range(999)]
    parquet.write_table(pa.table({"text": texts}), path, compression=compression, use_dictionary=False)
    data = path.read_bytes()
    for start in range(100, len(data) - 2000, 500):
        path.write_bytes(data[:start] + b"\xff" * 50 + data[start + 50 :])
        with pytest.raises(ValueError, match=r"x\.parquet is not Parquet, or damaged"):
            list(read(path))


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("x.txt", b"a\n\xff\n", {}, r"x\.txt:2 is not UTF-8: .* Save it as UTF-8\."),
        ("x.jsonl", '{"text": "a"}\n{"text"\n', {}, r"x\.jsonl:2 is not JSON"),
        ("x.jsonl", "[" * 100_000, {}, r"x\.jsonl:1 is not JSON"),
        ("x.jsonl", "[1]", {}, r"x\.jsonl:1 is a list, where a JSON object is needed"),
        ("x.jsonl", '{"body": "a", "id": 1}', {}, r"x\.jsonl:1 has no 'text'; it has body, id"),
        ("x.jsonl", '{"text": null}', {}, r"x\.jsonl:1 has null as 'text', where text is needed: leave it out"),
        ("x.jsonl", '{"text": "a"}\r{"text": "b"}\r', {}, r"x\.jsonl:1 is not JSON: its lines end in \\r alone; let"),
        ("x.jsonl", '{"text": "a\rb"}', {}, r"x\.jsonl:1 is not JSON: Invalid control"),
        ("x.csv", "text\ra\rb\r", {}, r"x\.csv:1 is not CSV: its lines end in \\r alone; let"),
        ("x.jsonl", '{"text": ["a"]}', {}, r"x\.jsonl:1 has a list as 'text', where text is needed"),
        ("x.jsonl", '{"text": "a"}', {"id_field": "key"}, r"x\.jsonl:1 has None as its id 'key'"),
        ("x.jsonl", '{"text": "a", "id": 1.5}', {}, r"x\.jsonl:1 has 1\.5 as its id 'id'"),
        ("x.jsonl", '{"text": "a", "id": true}', {}, r"x\.jsonl:1 has True as its id"),
        ("x.jsonl", '{"text": "a", "id": 1}\n{"text": "a", "id": "2"}', {}, r":2 has the id '2', .* of type int"),
        ("x.json", '{"text": "a"}\n', {}, r"x\.json may have a JSON object a line, which --format jsonl reads"),
        ("x.csv", "a,b\n1,2\n", {}, r"x\.csv has no column 'text'; it has a, b"),
        ("x.csv", "", {}, r"x\.csv has no column 'text'; it has none"),
        ("x.csv", "text,text\na,b\n", {}, r"x\.csv has several columns 'text': rename"),
        ("x.csv", "id,text,id\n1,a,2\n", {}, r"x\.csv has several columns 'id': rename"),
        ("x.csv", "text,b\n1,2\n1\n", {}, r"x\.csv:3 has 1 cells, where its header has 2"),
        ("x.csv", 'text\n"a\nb\n', {}, r"x\.csv:3 is not CSV: unexpected end of data"),
        ("x.csv", "text\na\n", {"id_field": "key"}, r"x\.csv has no column 'key'"),
    ],
)
def test_refused(name: str, content: str | bytes, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(ValueError, match=message):
        read(path, **options)


def test_nanoseconds_of_parquet_are_left_out(tmp_path: Path) -> None:
    arrow: Any = pytest.importorskip("pyarrow", reason="pyarrow, extra parquet")
    from pyarrow import parquet

    when = arrow.array([1_577_836_800_000_000_001], arrow.timestamp("ns"))
    parquet.write_table(arrow.table({"text": ["a"], "when": when}), tmp_path / "a.parquet")
    [record] = reading.records(source(str(tmp_path / "a.parquet"), also=["when"]))
    assert record.also == (datetime(2020, 1, 1),)


def test_a_parquet_file_with_two_columns_of_a_name(tmp_path: Path) -> None:
    arrow: Any = pytest.importorskip("pyarrow", reason="pyarrow, extra parquet")
    from pyarrow import parquet

    columns = [arrow.array(["a"]), arrow.array(["b"]), arrow.array([1]), arrow.array([2])]
    parquet.write_table(arrow.table(columns, names=["text", "text", "n", "n"]), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet has several columns 'text'"):
        read(tmp_path / "x.parquet")
    parquet.write_table(arrow.table(columns[1:], names=["text", "id", "id"]), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet has several columns 'id'"):
        read(tmp_path / "x.parquet")
    parquet.write_table(arrow.table(columns[1:], names=["text", "n", "n"]), tmp_path / "y.parquet")
    assert read(tmp_path / "y.parquet") == [("b", None)]
