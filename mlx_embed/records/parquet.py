"""Parquet, by pyarrow."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as error:
    raise ImportError('Parquet needs pyarrow: pip install ".[parquet]" in a clone of mlx-embed') from error

from mlx_embed.records.reading import check_columns
from mlx_embed.tokenizer.surrogates import well_formed

if TYPE_CHECKING:
    from mlx_embed.records.ragged import Layout, Rows
    from mlx_embed.records.reading import Id, Part, Record

# Rows that are in memory at a time.
_ROWS = 2048


def count(path: Path) -> int:
    """The rows of a file."""
    with faults_of(path), parquet.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def rows(
    path: Path, columns: Sequence[str], optional: Sequence[str], part: "Part | None" = None
) -> Iterator[tuple[str, tuple[int, int], Mapping[str, Any]]]:
    """Each row's place, its number from 1 twice, and its fields: `columns`, and those of `optional` that there are.

    With `part`, only these rows, and only the row groups that they are in are read.

    Raises:
        ValueError: no Parquet, or a column that is missing.
    """
    with faults_of(path), parquet.ParquetFile(path) as file:
        present = file.schema_arrow.names
        check_columns(str(path), present, columns, optional)
        wanted = list(dict.fromkeys([*columns, *(name for name in optional if name in present)]))
        first, end = (0, file.metadata.num_rows) if part is None else (part.first, part.first + part.rows)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = [0, *accumulate(sizes)]
        groups = [group for group, size in enumerate(sizes) if starts[group] < end and starts[group] + size > first]
        number = starts[groups[0]] if groups else 0
        for batch in file.iter_batches(batch_size=_ROWS, row_groups=groups, columns=wanted):
            inside = in_microseconds(batch[max(first - number, 0) : max(end - number, 0)])
            for place, row in enumerate(inside.to_pylist(), start=max(first, number)):
                yield f"{path}, row {place}", (place + 1, place + 1), row
            number += len(batch)


def in_microseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose times have no nanoseconds, which Python's own do not have: of its columns, not within these."""

    def coarser(column: Any) -> Any:
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            return column.cast(pa.timestamp("us", column.type.tz), safe=False)
        return column.cast(pa.time64("us"), safe=False) if column.type == pa.time64("ns") else column

    return pa.RecordBatch.from_arrays([coarser(column) for column in batch.columns], names=batch.schema.names)


def holdable(records: "Iterable[Record]") -> "Iterator[Record]":
    """The records, as long as their ids are such as a column of Parquet holds, so that it is known before any work.

    Raises:
        ValueError: a number beyond 64 bits with a sign, or half a surrogate pair; the place is named.
    """
    for record in records:
        if not _holds(record.id):
            raise ValueError(
                f"{record.place} has the id {record.id!r}, which a column of Parquet cannot hold: repair it, have the "
                "numbers as text, or write another kind of file."
            )
        yield record


def _holds(found: "Id | None") -> bool:
    if isinstance(found, str):
        return well_formed(found) == found
    return found is None or -(2**63) <= found < 2**63


def write(path: Path, vectors: Iterable[npt.NDArray[Any]], ids: Iterator[Any] | None, width: int, dtype: Any) -> None:
    """Write blocks of vectors [n, width] as a column "vector", and ids, if there are any, as a column "id"."""
    element = pa.from_numpy_dtype(np.dtype(dtype))
    schema = pa.schema([("vector", pa.list_(element, width))])
    _write(path, schema, ((len(block), [column(block)]) for block in vectors), ids)


def write_ragged(path: Path, blocks: Iterable["Rows"], ids: Iterator[Any] | None, layout: "Layout") -> None:
    """Write rows of several lengths, and ids, if there are any, as a column "id".

    Weights are two columns of lists, "indices" (int32) and "values" (float), and vectors one, "vectors", of lists of
    lists of one length: as Qdrant, LanceDB and polars take them.
    """
    flat = pa.list_(pa.float32(), layout.width) if layout.width else None
    names = [("indices", pa.int32()), ("values", pa.float32())] if flat is None else [("vectors", flat)]
    schema = pa.schema([(name, pa.list_(item)) for name, item in names])

    def columns(rows: "Rows") -> list[Any]:
        offsets = pa.array(np.concatenate([np.zeros(1, np.int32), np.cumsum(rows.lengths, dtype=np.int32)]))
        items = [rows.items["index"], rows.items["value"]] if layout.weights else [rows.items]
        inner = [pa.array(np.ascontiguousarray(item)) if layout.weights else column(item) for item in items]
        return [pa.ListArray.from_arrays(offsets, own) for own in inner]

    _write(path, schema, ((len(rows.lengths), columns(rows)) for rows in blocks), ids)


def _write(path: Path, schema: Any, blocks: Iterable[tuple[int, list[Any]]], ids: Iterator[Any] | None) -> None:
    """Blocks of so many rows, each by its columns; ids in front, of the first's type."""
    first = None if ids is None else next(ids, None)
    if ids is not None:
        ids = ids if first is None else chain([first], ids)
        schema = schema.insert(0, pa.field("id", pa.int64() if isinstance(first, int) else pa.string()))
    with parquet.ParquetWriter(path, schema) as writer:
        for count, columns in blocks:
            names = [] if ids is None else [pa.array(list(islice(ids, count)), schema.field("id").type)]
            writer.write_table(pa.Table.from_arrays([*names, *columns], schema=schema))


def column(vectors: npt.NDArray[Any]) -> Any:
    """Vectors [n, width] as a column of lists of one length, over the same memory where they are contiguous."""
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.from_numpy_dtype(vectors.dtype))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def tensors(vectors: npt.NDArray[Any]) -> Any:
    """Vectors [n, width] as a column of Arrow's fixed-shape tensors, which Ray gives back as one numpy array."""
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(vectors))


@contextmanager
def faults_of(path: Path) -> Iterator[None]:
    """Say of which file it is where there is something wrong with it, which may show in its midst only.

    Raises:
        ValueError: instead of Arrow's errors.
    """
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not Parquet, or damaged: {error}") from error
    except OSError as error:
        if error.errno is not None:  # of the system, and not of what is compressed
            raise
        raise ValueError(f"{path} is not Parquet, or damaged: {error}") from error
