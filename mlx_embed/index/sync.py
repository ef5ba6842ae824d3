"""An index brought up to date with folders: what is new, changed, moved and gone since the last time."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_embed.arguments import require_list
from mlx_embed.index import documents, sources
from mlx_embed.index.chunks import Chunker, Chunking, counter
from mlx_embed.index.database import DATABASE
from mlx_embed.index.documents import Document, kind_of
from mlx_embed.index.entries import Chunk, FileStat
from mlx_embed.index.lock import LOCK
from mlx_embed.index.sources import BinaryError, Found, Walk
from mlx_embed.progress import Progress
from mlx_embed.texts import progress

if TYPE_CHECKING:
    from mlx_embed.index.index import Index

logger = logging.getLogger("mlx_embed")

# Files, and characters of them, whose chunks are made together.
_FILES = 256
_CHARACTERS = 2**21


@dataclass
class Summary:
    """What `sync` has done.

    Attributes:
        indexed: paths of files that are new.
        changed: of files that have other bytes than they had.
        moved: from where, to where, of files that are known by their bytes.
        removed: of files that are gone, or no longer to be indexed.
        unchanged: how many files are as they were.
        failed: path and reason, of files and folders that could not be read. The index keeps what it had of a file that
            could not be opened, of a folder's files, and of those whose reader is not installed; of a file whose bytes
            are not what its name says it keeps nothing.
        left_out: how many files and folders were left out, by the reason: "hidden", "ignored", "binary", "link",
            "special".
        chunks: of the files that are new, changed or moved.
    """

    indexed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    moved: list[tuple[str, str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    chunks: int = 0

    def __str__(self) -> str:
        lists: tuple[tuple[str, Sequence[object]], ...]
        lists = (("indexed", self.indexed), ("changed", self.changed), ("moved", self.moved), ("removed", self.removed))
        parts = [f"{len(paths):,} {name}" for name, paths in lists]
        left = [f"{count:,} {name}" for name, count in sorted(self.left_out.items()) if count]
        text = ", ".join([*parts, f"{self.unchanged:,} unchanged", f"{len(self.failed):,} failed"])
        return f"{text}; left out: {', '.join(left)}" if left else text

    @property
    def did_something(self) -> bool:
        """Whether the index is another one now."""
        return bool(self.indexed or self.changed or self.moved or self.removed)


def sync(index: "Index", folders: Iterable[str | Path], *, globs: Iterable[str] = ()) -> Summary:
    """Let an index have what is below `folders` now, as a new one would: paths elsewhere are left alone.

    What was done when this is ended, by whatever, is kept, and the next call goes on. The model is loaded only where a
    file is new or has changed. An index that lies in a source, this one or another, is passed over.

    Args:
        index: open for writing. One that names no chunker gets chunks of the default length.
        folders: folders or files.
        globs: patterns in .gitignore's language, of which a file must match one; none take all. A file that was indexed
            and matches no more is removed.

    Raises:
        MissingSourceError: a source is not there, and the index keeps what it has of all.
        TypeError: folders that are no paths, or globs that are no list.
        StoreMismatchError: the index has chunks of another version.
    """
    require_list("globs", globs)
    return _Sync(index, sources.roots(folders), tuple(globs)).run()


def chunker_of(index: "Index") -> Chunker:
    """What makes chunks for an index; its model is loaded when the first text is counted."""
    chunking = Chunking.of(index.chunker) if index.chunker else Chunking.checked(index.model)
    return Chunker(chunking, lambda texts: counter(index.model, index.statement.document_prompt)(texts))


class _Sync:
    def __init__(self, index: "Index", roots: Sequence[Path], globs: Sequence[str]) -> None:
        self._index, self._roots, self._globs = index, roots, globs
        self._chunker = chunker_of(index)
        self._known = index.files()
        self._summary = Summary()
        self._advance = Progress()
        self._touched: list[tuple[str, FileStat]] = []
        self._spoilt: set[str] = set()  # files that are there, and of which the index can have nothing
        self._vanished: dict[tuple[str, str], list[str]] = defaultdict(list)  # by bytes and kind

    def run(self) -> Summary:
        seen = Walk()
        found = list(sources.walk(self._roots, self._globs, _is_an_index, seen))
        summary, known = self._summary, self._known
        summary.left_out = seen.left_out
        summary.failed += seen.failed
        here = {file.path for file in found} | {path for path, _ in seen.failed}
        gone = [path for path in known if self._is_ours(path) and path not in here and not _inside(path, seen.unread)]
        for path in gone:
            self._vanished[known[path].sha256, kind_of(path)].append(path)
        stale = []
        for file in found:
            before = known.get(file.path)
            if before is not None and (before.size, before.mtime_ns) == (file.size, file.changed_ns):
                summary.unchanged += 1
            else:
                stale.append(file)
        if stale:
            logger.info("Reading %d files.", len(stale))
            with progress(None, len(stale), "file", description="Indexing", steps=True) as self._advance:
                self._index.replace_files(self._changes(stale), self._advance)
        if self._touched:
            self._index.touch_files(self._touched)
        moved_from = {path for path, _ in summary.moved}
        spoilt = sorted(self._spoilt & known.keys())
        summary.removed = sorted([*(path for path in gone if path not in moved_from), *spoilt])
        if gone or spoilt:
            # Last, so that the vectors of a moved file's chunks are still there to be taken.
            self._index.remove_files([*gone, *spoilt])
        return summary

    def _is_ours(self, path: str) -> bool:
        return any(path == root.as_posix() or _inside(path, [root.as_posix()]) for root in self._roots)

    def _changes(self, stale: Iterable[Found]) -> Iterator[tuple[str, FileStat, Sequence[Chunk]]]:
        """The files of which the index has to have other chunks, as they are asked for."""
        batch: list[tuple[str, FileStat, list[Document]]] = []
        characters = 0
        for file in stale:
            if (change := self._change(file)) is None:
                self._advance(1)  # there is nothing to do
            else:
                batch.append(change)
                characters += sum(len(document.text) for document in change[2])
            if len(batch) == _FILES or characters >= _CHARACTERS:
                yield from self._chunked(batch)
                batch, characters = [], 0
        yield from self._chunked(batch)

    def _chunked(
        self, batch: Sequence[tuple[str, FileStat, list[Document]]]
    ) -> Iterator[tuple[str, FileStat, Sequence[Chunk]]]:
        chunks = self._chunker.chunks([(path, found) for path, _, found in batch])
        for (path, state, _), of_file in zip(batch, chunks, strict=True):
            self._summary.chunks += len(of_file)
            yield path, state, of_file

    def _change(self, file: Found) -> tuple[str, FileStat, list[Document]] | None:
        """A file's documents; None where it is as it was, or cannot be read."""
        summary, path, before = self._summary, file.path, self._known.get(file.path)
        try:
            data, state = sources.read(file)
        except BinaryError:
            summary.left_out["binary"] += 1
            self._spoilt.add(path)
            return None
        except FileNotFoundError:  # removed since it was found
            self._spoilt.add(path)
            return None
        except OSError as error:
            summary.failed.append((path, error.strerror or str(error)))
            return None
        except ValueError as error:
            self._spoil(path, error)
            return None
        if before is not None and before.sha256 == state.sha256:
            summary.unchanged += 1
            if state != before:
                self._touched.append((path, state))
            return None
        try:
            found = documents.read(Path(path), data, self._chunker.chunking.fields)
        except (ImportError, OSError) as error:
            summary.failed.append((path, str(error)))
            return None
        except ValueError as error:
            self._spoil(path, error)
            return None
        origins = self._vanished[state.sha256, kind_of(path)]
        if before is not None:
            summary.changed.append(path)
        elif origins:
            summary.moved.append((origins.pop(0), path))
        else:
            summary.indexed.append(path)
        return path, state, found

    def _spoil(self, path: str, error: Exception) -> None:
        self._summary.failed.append((path, str(error)))
        self._spoilt.add(path)


def _is_an_index(folder: Path) -> bool:
    return (folder / DATABASE).is_file() and (folder / LOCK).is_file()


def _inside(path: str, folders: Iterable[str]) -> bool:
    return any(path.startswith(folder.rstrip("/") + "/") for folder in folders)
