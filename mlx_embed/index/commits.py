"""Which files of an index are embedded and committed together."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from mlx_embed.index.entries import Chunk, FileStat
from mlx_embed.index.rows import state

FileChunks: TypeAlias = tuple[str, FileStat, Sequence[Chunk]]

# Chunks that `Index.replace_files` brings together before it embeds and commits them: as many as take some seconds, by
# what those before took, but no fewer and no more than these.
COMMIT_SECONDS, COMMITTED_AT_FIRST, COMMITTED = 8.0, 256, 4096


class Pace:
    """How many chunks to commit together."""

    def __init__(self) -> None:
        self.chunks = min(COMMITTED_AT_FIRST, COMMITTED)

    def learn(self, chunks: int, seconds: float) -> None:
        """So many took so long."""
        fitting = round(chunks * COMMIT_SECONDS / max(seconds, 1e-3))
        self.chunks = min(max(fitting, COMMITTED_AT_FIRST), COMMITTED)


def batches(files: Iterable[FileChunks], pace: Pace) -> Iterator[list[FileChunks]]:
    """Files, so many together that they have as many chunks as the pace says; one that comes again begins another."""
    batch: list[FileChunks] = []
    paths: set[str] = set()
    count = 0
    for given, stated, chunks in files:
        path, stat = state(given, stated)
        chunks = list(chunks)
        ordinals = {chunk.ordinal for chunk in chunks}
        if len(ordinals) != len(chunks):
            raise ValueError(f"Two chunks of {path!r} have the same ordinal; number them from 0.")
        if batch and (path in paths or count + len(chunks) > pace.chunks):
            yield batch
            batch, paths, count = [], set(), 0
        batch.append((path, stat, chunks))
        paths.add(path)
        count += len(chunks)
    if batch:
        yield batch
