"""An index written out, and brought back."""

import json
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.errors import StoreMismatchError
from mlx_embed.index import Chunk, FileStat, Index, load
from tests.mlx_embed.index.conftest import fill, names, texts, vectors

arrow: Any = pytest.importorskip("pyarrow")


@pytest.fixture
def filled(index: Index) -> Index:
    fill(index, 5000)
    index.delete(names(10))
    index.replace_files(
        [("a.md", FileStat(1, 2, "ab"), [Chunk("wing", "a.md", 3, 7, 2, 4, ("A", "Ü"), 0, {"ü": [1]})])]
    )
    return index


def test_parquet_has_everything(filled: Index, model: EmbeddingModel, tmp_path: Path) -> None:
    from pyarrow import parquet

    filled.export(tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table["id"].to_pylist() == [*names(5000)[10:], "a.md#0"]
    assert table["text"].to_pylist()[:4990] == texts(5000)[10:]
    found = np.array(table["vector"].to_pylist(), dtype=np.float32)
    np.testing.assert_array_equal(found[:4990], vectors(5000)[10:])
    last = {name: table[name][-1].as_py() for name in table.column_names if name != "vector"}
    assert last.pop("metadata") == json.dumps({"ü": [1]}, ensure_ascii=False)
    assert last == {
        "id": "a.md#0",
        "text": "wing",
        "path": "a.md",
        "byte_start": 3,
        "byte_end": 7,
        "line_start": 2,
        "line_end": 4,
        "heading": ["A", "Ü"],
    }
    assert json.loads(table.schema.metadata[b"mlx_embed"])["statement"]["model"] == model.name
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_lancedb_table(filled: Index, tmp_path: Path) -> None:
    lancedb: Any = pytest.importorskip("lancedb")
    filled.export(tmp_path / "out.lance")
    table = lancedb.connect(str(tmp_path)).open_table("out")
    assert table.count_rows() == len(filled)
    query = filled._query_vectors(["the heat"])[0]
    answer = table.search(query).distance_type("dot").limit(5).to_arrow()
    assert answer["id"].to_pylist() == [hit.id for hit in filled.search("the heat", 5, mode="vector")]


@pytest.mark.parametrize("name", ["out.parquet", "out.lance"])
def test_what_is_exported_comes_back_equal(
    filled: Index, model: EmbeddingModel, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.endswith(".lance"):
        pytest.importorskip("lancedb")
    monkeypatch.setattr(load, "_AT_ONCE", 1000)
    filled.replace_files([("empty.md", FileStat(0, 2, "cd"), [])])
    filled.export(tmp_path / name)
    with Index.create(tmp_path / "again", model, row_dtype="int8") as again:
        again.add([names(20)[19]], ["other"])
        again.replace_files([("a.md", FileStat(0, 0, ""), [Chunk("x", "a.md", 0, 0, 0, 0, (), n) for n in range(3)])])
        for _ in range(2):  # and once more changes nothing
            assert again.load(tmp_path / name) == len(filled)
            assert again.get() == filled.get()
            assert list(again.get()) == list(filled.get())
            assert again.files() == filled.files()
            again.check()
        for mode in ("vector", "text", "hybrid"):
            assert again.search("the wing", 50, mode=mode) == filled.search("the wing", 50, mode=mode)


def test_the_chunks_of_a_file_are_committed_together(
    index: Index, model: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_AT_ONCE", 5)
    for path in ("a.md", "b.md", "c.md"):
        index.replace_files([(path, FileStat(1, 2, "ab"), [Chunk("x", path, 0, 0, 0, 0, (), n) for n in range(7)])])
    index.export(tmp_path / "out.parquet")
    commits: list[list[str]] = []
    put = load._put

    def kept(store: Any, entries: Any, *others: Any) -> None:
        commits.append([entry.chunk.path for entry in entries])
        put(store, entries, *others)

    monkeypatch.setattr(load, "_put", kept)
    with Index.create(tmp_path / "again", model) as again:
        assert again.load(tmp_path / "out.parquet") == 21
    assert commits == [["a.md"] * 7, ["b.md"] * 7, ["c.md"] * 7]
    monkeypatch.setattr(load, "_AT_ONCE", 1)
    apart = write(tmp_path / "apart.parquet", id=["a", "b", "c"], text=["x", "y", "z"], path=["a.md", "b.md", "a.md"])
    with pytest.raises(ValueError, match=r"rows of a\.md are apart"):
        index.load(apart)


def write(file: Path, **columns: Any) -> Path:
    return write_table(file, arrow.table(columns))


def write_table(file: Path, table: Any) -> Path:
    from pyarrow import parquet

    parquet.write_table(table, file)
    return file


def test_a_table_of_another_program(index: Index, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=[1, 2], text=["wing", "soup"], year=[1999, None], metadata=["x", "y"])
    assert index.load(path) == 2
    assert {name: (hit.text, hit.metadata) for name, hit in index.get().items()} == {
        "1": ("wing", {"year": 1999, "metadata": "x"}),
        "2": ("soup", {"metadata": "y"}),
    }
    assert index.search("soup", 1, mode="vector")[0].score == pytest.approx(1, abs=1e-6)
    path = write(tmp_path / "b.parquet", id=["1"], text=["heat"], vector=vectors(1).tolist())
    with pytest.raises(StoreMismatchError, match="does not say of which model"):
        index.load(path)
    assert index.load(path, same_model=True) == 1
    assert index.get(["1"])["1"].text == "heat"
    assert index.search("q", 1, mode="vector", vectors=vectors(1)[0])[0].id == "1"


def test_values_of_another_program_that_json_has_not(index: Index, tmp_path: Path) -> None:
    zone = timezone(timedelta(hours=1))
    columns = {
        "when": [datetime(2020, 1, 2), datetime(2020, 1, 2, 3, 4, 5, 678)],
        "zoned": arrow.array([datetime(2020, 1, 2, tzinfo=zone)] * 2, arrow.timestamp("us", "+01:00")),
        "day": [date(1999, 12, 31), date(2020, 1, 2)],
        "at": [time(1, 2), None],
        "price": [Decimal("1.50"), Decimal("2.25")],
        "part": [{"x": float("nan"), "days": [date(2020, 1, 2)]}, None],
        "x": [float("nan"), 1.5],
    }
    assert index.load(write(tmp_path / "a.parquet", id=["a", "b"], text=["wing", "soup"], **columns)) == 2
    assert {name: hit.metadata for name, hit in index.get().items()} == {
        "a": {
            "when": "2020-01-02T00:00:00",
            "zoned": "2020-01-02T00:00:00+01:00",
            "day": "1999-12-31",
            "at": "01:02:00",
            "price": 1.5,
            "part": {"x": None, "days": ["2020-01-02"]},
        },
        "b": {
            "when": "2020-01-02T03:04:05.000678",
            "zoned": "2020-01-02T00:00:00+01:00",
            "day": "2020-01-02",
            "price": 2.25,
            "x": 1.5,
        },
    }
    assert list(index.get(filter={"day": {">=": "2000-01-01"}, "price": {">": 2}})) == ["b"]


def test_headings_and_nanoseconds_of_another_program(index: Index, tmp_path: Path) -> None:
    columns = {
        "heading": ["Wings", None],
        "when": arrow.array([1_577_836_800_000_000_001, None], arrow.timestamp("ns", "UTC")),
        "at": arrow.array([3_600_000_000_001, None], arrow.time64("ns")),
    }
    assert index.load(write(tmp_path / "a.parquet", id=["a", "b"], text=["wing", "soup"], **columns)) == 2
    found = index.get()
    assert (found["a"].heading, found["b"].heading) == (("Wings",), ())
    assert found["a"].metadata == {"when": "2020-01-01T00:00:00+00:00", "at": "01:00:00"}


def test_an_id_that_comes_again_after_a_commit(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.add(["a", "b"], ["old", "older"])
    monkeypatch.setattr(load, "_AT_ONCE", 2)
    path = write(tmp_path / "twice.parquet", id=["b", "a", "c", "b", "d"], text=["1", "2", "3", "4", "5"])
    for _ in range(2):  # the second time finds what the first has put there
        with pytest.raises(ValueError, match="'b' is there twice"):
            index.load(path)
        assert {name: hit.text for name, hit in index.get().items()} == {"a": "2", "b": "1"}


def test_what_cannot_be_loaded(filled: Index, model: EmbeddingModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither \.parquet nor \.lance"):
        filled.load(tmp_path / "out.csv")
    for name in ("out.parquet", "out.lance"):
        with pytest.raises(FileNotFoundError, match="There is no"):
            filled.load(tmp_path / name)
    with pytest.raises(ValueError, match="no column 'text'; it has id, body"):
        filled.load(write(tmp_path / "a.parquet", id=["a"], body=["b"]))
    with pytest.raises(ValueError, match="'a' is there twice"):
        filled.load(write(tmp_path / "b.parquet", id=["a", "a"], text=["b", "c"]))
    broken: Any = {"id": ["a", "b"], "text": ["b", "c"]}
    for vector, found in ((None, "None"), ([0.0] * 5, "a vector of 5")):
        path = write(tmp_path / "c.parquet", **broken, vector=[[0.0] * 32, vector])
        with pytest.raises(ValueError, match=rf"c\.parquet has {found} for 'b', where 32 numbers are needed"):
            filled.load(path, same_model=True)
    for value in (b"x", [float("inf")]):
        with pytest.raises(ValueError, match=r"c\.parquet has .* in its column 'raw', which metadata cannot hold"):
            filled.load(write(tmp_path / "c.parquet", **broken, raw=[value, value]))
    with pytest.raises(TypeError, match="The heading of 'a' is an int, where a string"):
        filled.load(write(tmp_path / "c.parquet", **broken, heading=[[1], [2]]))
    with pytest.raises(ValueError, match="The line_start of 'a' is -1, which is no place in a file"):
        filled.load(write(tmp_path / "c.parquet", **broken, line_start=[-1, 2]))
    with pytest.raises(ValueError, match="The byte_end of 'a' is 9223372036854775808, which is no place"):
        filled.load(write(tmp_path / "c.parquet", **broken, byte_end=arrow.array([2**63, 2], arrow.uint64())))
    with pytest.raises(TypeError, match="The id of True is a bool"):
        filled.load(write(tmp_path / "c.parquet", id=[True, False], text=["b", "c"]))
    twice = arrow.table([["a"], ["b"], [1], [2]], names=["id", "text", "k", "k"])
    with pytest.raises(ValueError, match=r"c\.parquet has several columns 'k': rename"):
        filled.load(write_table(tmp_path / "c.parquet", twice))
    filled.export(tmp_path / "out.parquet")
    with (
        Index.create(tmp_path / "other", model, document_prompt="text: ") as other,
        pytest.raises(StoreMismatchError, match="document_prompt"),
    ):
        other.load(tmp_path / "out.parquet")
    with (
        Index.create(tmp_path / "chunked", model, chunker="mine 2") as other,
        pytest.raises(StoreMismatchError, match="chunker"),
    ):
        other.load(tmp_path / "out.parquet")
    assert len(filled) == 4991


def test_a_table_that_is_damaged_is_named(filled: Index, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", id=[str(i) for i in range(999)], text=[f"wing {i}" for i in range(999)])
    data = path.read_bytes()
    for broken in (data[:-9], data[:100] + bytes(200) + data[300:]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"a\.parquet is not Parquet, or damaged"):
            filled.load(path)


def test_where_it_cannot_be_written(filled: Index, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere to write out"):
        filled.export(tmp_path / "nowhere" / "out.parquet")
    with pytest.raises(ValueError, match=r"neither \.parquet nor \.lance"):
        filled.export(tmp_path / "out.csv")
    (tmp_path / "out.parquet").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="is there already"):
        filled.export(tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == b"mine"
