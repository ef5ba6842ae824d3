"""An index written out, for other programs and for `load`: Parquet, or a LanceDB table."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.index import rows
from mlx_embed.index.entries import FileStat, Hit
from mlx_embed.index.statement import Statement
from mlx_embed.index.store import Store
from mlx_embed.index.view import View

Float32 = npt.NDArray[np.float32]

# What the table's schema says in its metadata under this key, in JSON: {"statement": ..., "files": ...}.
SAID = b"mlx_embed"
# Texts that are written at a time.
_AT_ONCE = 4096


def export(store: Store, path: Path) -> None:
    """Write every text to `path`, in the order in which they were added; see `Index.export`."""
    if path.suffix not in (".parquet", ".lance"):
        raise ValueError(f"{path} ends with neither .parquet nor .lance; name a file or table that does.")
    if path.exists():
        raise FileExistsError(f"{path} is there already; move it away, or name another.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into.")
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'To export an index, install pyarrow: pip install ".[parquet]" in a clone of mlx-embed'
        ) from error
    with store.reading() as (connection, view):
        batches = _batches(rows.every(connection, store.database), view)
        schema = _schema(store.statement, rows.files(connection, store.database))
        if path.suffix == ".parquet":
            _to_parquet(batches, schema, path)
        else:
            _to_lance(batches, schema, path)


def everything(store: Store) -> Iterator[tuple[list[Hit], Float32]]:
    """Some texts and their vectors [n, D] at a time; see `Index.everything`."""
    with store.reading() as (connection, view):
        texts = rows.every(connection, store.database)
        while batch := list(islice(texts, _AT_ONCE)):
            numbers = np.array([number for number, _ in batch], dtype=np.int64)
            yield [hit for _, hit in batch], view.vectors(numbers)


def _to_parquet(batches: Iterator[dict[str, Any]], schema: Any, path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with parquet.ParquetWriter(fresh, schema) as writer:
            for batch in batches:
                writer.write_batch(pyarrow.RecordBatch.from_pydict(batch, schema=schema))
        os.rename(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _to_lance(batches: Iterator[dict[str, Any]], schema: Any, path: Path) -> None:
    import pyarrow

    try:
        import lancedb
    except ImportError as error:
        raise ImportError("To export to a LanceDB table, install it: pip install lancedb") from error
    read = (pyarrow.RecordBatch.from_pydict(batch, schema=schema) for batch in batches)
    lancedb.connect(str(path.parent)).create_table(path.stem, read, schema=schema)


def _schema(statement: Statement, files: Mapping[str, FileStat]) -> Any:
    import pyarrow as arrow

    said = {"statement": asdict(statement), "files": {path: asdict(stat) for path, stat in files.items()}}
    return arrow.schema(
        [
            ("id", arrow.string()),
            ("text", arrow.string()),
            ("path", arrow.string()),
            *((name, arrow.int64()) for name in ("byte_start", "byte_end", "line_start", "line_end")),
            ("heading", arrow.list_(arrow.string())),
            ("metadata", arrow.string()),
            ("vector", arrow.list_(arrow.float32(), statement.dimension)),
        ],
        metadata={SAID: json.dumps(said, ensure_ascii=False).encode()},
    )


def _batches(texts: Iterator[tuple[int, Hit]], view: View) -> Iterator[dict[str, Any]]:
    """Columns of so many texts at a time."""
    batch: list[tuple[int, Hit]] = []
    for one in texts:
        batch.append(one)
        if len(batch) == _AT_ONCE:
            yield _columns(batch, view)
            batch = []
    if batch:
        yield _columns(batch, view)


def _columns(batch: list[tuple[int, Hit]], view: View) -> dict[str, Any]:
    import pyarrow as arrow

    hits = [hit for _, hit in batch]
    vectors = view.vectors(np.array([number for number, _ in batch], dtype=np.int64))
    names = ("id", "text", "path", "byte_start", "byte_end", "line_start", "line_end")
    return {
        **{name: [getattr(hit, name) for hit in hits] for name in names},
        "heading": [list(hit.heading) for hit in hits],
        "metadata": [json.dumps(hit.metadata, ensure_ascii=False) for hit in hits],
        "vector": arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.reshape(-1)), vectors.shape[1]),
    }
