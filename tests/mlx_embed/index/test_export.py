"""An index written out, and brought back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.index import Chunk, FileStat, Index
from tests.mlx_embed.index.conftest import fill, names, texts, vectors

arrow: Any = pytest.importorskip("pyarrow")


@pytest.fixture
def filled(index: Index) -> Index:
    fill(index, 5000)
    index.delete(names(10))
    index.replace_file("a.md", FileStat(1, 2, "ab"), [Chunk("wing", "a.md", 3, 7, 2, 4, ("A", "Ü"), 0, {"ü": [1]})])
    return index


def test_parquet_has_everything_and_comes_back(filled: Index, model: EmbeddingModel, tmp_path: Path) -> None:
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
    assert json.loads(table.schema.metadata[b"mlx_embed"])["model"] == model.name
    with Index.create(tmp_path / "again", model) as again:
        metadata = [json.loads(one) for one in table["metadata"].to_pylist()]
        again.add(table["id"].to_pylist(), table["text"].to_pylist(), metadata, vectors=found)
        for mode in ("vector", "text", "hybrid"):
            hits = [(hit.id, hit.score, hit.text, hit.metadata) for hit in filled.search("the wing", 50, mode=mode)]
            assert [(h.id, h.score, h.text, h.metadata) for h in again.search("the wing", 50, mode=mode)] == hits
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_lancedb_table(filled: Index, tmp_path: Path) -> None:
    lancedb: Any = pytest.importorskip("lancedb")
    filled.export(tmp_path / "out.lance")
    table = lancedb.connect(str(tmp_path)).open_table("out")
    assert table.count_rows() == len(filled)
    query = filled._query_vectors(["the heat"])[0]
    answer = table.search(query).distance_type("dot").limit(5).to_arrow()
    assert answer["id"].to_pylist() == [hit.id for hit in filled.search("the heat", 5, mode="vector")]


def test_where_it_cannot_be_written(filled: Index, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither \.parquet nor \.lance"):
        filled.export(tmp_path / "out.csv")
    (tmp_path / "out.parquet").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="is there already"):
        filled.export(tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == b"mine"
