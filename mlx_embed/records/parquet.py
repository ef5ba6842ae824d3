"""Parquet, by pyarrow."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as error:
    raise ImportError('Parquet needs pyarrow: pip install ".[parquet]" in a clone of mlx-embed') from error

if TYPE_CHECKING:
    from mlx_embed.records.reading import Part

# Rows that are in memory at a time.
_ROWS = 2048


def count(path: Path) -> int:
    """The rows of a file."""
    with _open(path) as file:
        return int(file.metadata.num_rows)


def rows(
    path: Path, columns: Sequence[str], optional: Sequence[str], part: "Part | None" = None
) -> Iterator[tuple[str, tuple[int, int], Mapping[str, Any]]]:
    """Each row's place, its number from 1 twice, and its fields: `columns`, and those of `optional` that there are.

    With `part`, only these rows, and only the row groups that they are in are read.

    Raises:
        ValueError: no Parquet, or a column that is missing.
    """
    with _open(path) as file:
        present = file.schema_arrow.names
        if missing := [name for name in columns if name not in present]:
            raise ValueError(f"{path} has no column {missing[0]!r}; it has {', '.join(present)}.")
        wanted = list(dict.fromkeys([*columns, *(name for name in optional if name in present)]))
        first, end = (0, file.metadata.num_rows) if part is None else (part.first, part.first + part.rows)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = [0, *accumulate(sizes)]
        groups = [group for group, size in enumerate(sizes) if starts[group] < end and starts[group] + size > first]
        number = starts[groups[0]] if groups else 0
        for batch in file.iter_batches(batch_size=_ROWS, row_groups=groups, columns=wanted):
            inside = batch[max(first - number, 0) : max(end - number, 0)]
            for place, row in enumerate(inside.to_pylist(), start=max(first, number)):
                yield f"{path}, row {place}", (place + 1, place + 1), row
            number += len(batch)


def write(path: Path, vectors: Iterable[npt.NDArray[Any]], ids: Iterator[Any] | None, width: int, dtype: Any) -> None:
    """Write blocks of vectors [n, width] as a column "vector", and ids, if there are any, as a column "id"."""
    element = pa.from_numpy_dtype(np.dtype(dtype))
    schema = pa.schema([("vector", pa.list_(element, width))])
    blocks = iter(vectors)
    names: list[Any] = []
    first = next(blocks, np.zeros((0, width), dtype))
    if ids is not None:
        names = list(islice(ids, len(first)))
        schema = schema.insert(0, pa.field("id", pa.int64() if names and isinstance(names[0], int) else pa.string()))
    with parquet.ParquetWriter(path, schema) as writer:
        block: npt.NDArray[Any] | None = first
        while block is not None:
            columns = [column(block)]
            if ids is not None:
                columns.insert(0, pa.array(names, schema.field("id").type))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            block = next(blocks, None)
            if ids is not None and block is not None:
                names = list(islice(ids, len(block)))


def column(vectors: npt.NDArray[Any]) -> Any:
    """Vectors [n, width] as a column of lists of one length, over the same memory where they are contiguous."""
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.from_numpy_dtype(vectors.dtype))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def tensors(vectors: npt.NDArray[Any]) -> Any:
    """Vectors [n, width] as a column of Arrow's fixed-shape tensors, which Ray gives back as one numpy array."""
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(vectors))


def _open(path: Path) -> Any:
    try:
        return parquet.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not Parquet: {error}") from error
