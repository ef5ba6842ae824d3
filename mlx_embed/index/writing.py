"""Texts and chunks of files into an index and out of it, each call in commits of whole texts or files."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlx_embed.index import rows
from mlx_embed.index.commits import FileChunks, Pace, batches
from mlx_embed.index.entries import Chunk
from mlx_embed.index.rows import Entry
from mlx_embed.index.store import Store

Float32: TypeAlias = npt.NDArray[np.float32]
Embed: TypeAlias = Callable[[Sequence[Entry]], Float32]


def put(store: Store, entries: Sequence[Entry], vectors: Float32 | None, embed: Embed, *, replace: bool) -> None:
    """Add texts in one commit, each in the place of one with the same id if there may be one; None embeds them.

    Raises:
        ValueError: an id that is there already, and may not.
    """
    store.acquire()
    if not entries:
        return
    ids = [entry.id for entry in entries]
    if not replace:
        with store.reading() as (connection, _):
            _require_new(rows.numbers_of(connection, "id", ids))
    fresh = embed(entries) if vectors is None else vectors
    with store.writing() as transaction:
        there = rows.numbers_of(transaction.connection, "id", ids)
        if not replace:
            _require_new(there)  # once more: another thread may have added it while the texts were embedded
        if there:
            transaction.remove([number for found in there.values() for number in found])
        transaction.put(entries, fresh)


def remove(store: Store, column: str, values: Sequence[str]) -> int:
    """Remove the texts, and files, with these values of "id" or "path" in one commit; how many texts there were."""
    with store.writing() as transaction:
        there = rows.numbers_of(transaction.connection, column, values)
        gone = [number for found in there.values() for number in found]
        transaction.remove(gone)
        if column == "path":
            transaction.connection.executemany("DELETE FROM file WHERE path = ?", [(path,) for path in values])
    return len(gone)


def replace_files(store: Store, files: Iterable[FileChunks], embed: Embed, advance: Callable[[int], Any]) -> int:
    """See `Index.replace_files`."""
    store.acquire()
    count, pace = 0, Pace()
    for batch in batches(files, pace):
        began = time.monotonic()
        entries = [_of_file(path, chunk) for path, _, chunks in batch for chunk in chunks]
        vectors = embed(entries)
        paths = list(dict.fromkeys(path for path, _, _ in batch))
        with store.writing() as transaction:
            there = rows.numbers_of(transaction.connection, "path", paths)
            transaction.remove([number for found in there.values() for number in found])
            transaction.put(entries, vectors)
            for path, stat, _ in batch:
                rows.put_file(transaction.connection, path, stat)
        count += len(batch)
        advance(len(batch))
        pace.learn(len(entries), time.monotonic() - began)
    return count


def _of_file(path: str, chunk: Chunk) -> Entry:
    if chunk.path != path:
        raise ValueError(f"A chunk of {path!r} has the path {chunk.path!r}; give it that of its file.")
    return rows.entry(replace(chunk, path=path).id, chunk)


def _require_new(there: Mapping[str, Sequence[int]]) -> None:
    if there:
        raise ValueError(f"The id {next(iter(there))!r} is in the index already; use upsert to put a new text there.")
