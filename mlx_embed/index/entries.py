"""What goes into an index and what comes out: a chunk of a file, the state of a file, and a hit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FileStat:
    """The state of a file when it was read: by it a later run sees that the file has changed.

    Attributes:
        size: in bytes.
        mtime_ns: when it was last written, in nanoseconds.
        sha256: of its bytes, unpacked, in hexadecimal.
    """

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Chunk:
    """A passage of a file.

    Attributes:
        text: what is embedded, and found by its words.
        path: of its file, as the index knows it.
        byte_start: where it begins in the file.
        byte_end: where it ends, exclusive.
        line_start: its first line, from 1.
        line_end: its last line, inclusive.
        heading: the headings that it stands under, outermost first.
        ordinal: its place among the chunks of its file, from 0.
        metadata: anything that JSON can hold; numbers, strings and booleans, and lists of these, can be filtered by.
    """

    text: str
    path: str
    byte_start: int
    byte_end: int
    line_start: int
    line_end: int
    heading: tuple[str, ...] = ()
    ordinal: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What the index calls it: path#ordinal."""
        return f"{self.path}#{self.ordinal}"


@dataclass(frozen=True)
class Hit:
    """A text that a search has found.

    Attributes:
        id: the text's own; path#ordinal of a file's chunk.
        score: larger is better: the cosine (or inner product) of mode "vector", BM25 of "text", the sum of reciprocal
            ranks of "hybrid", and the reranker's score where there was one.
        text: the whole of it.
        path: of its file; "" of a text that was added without one, as are the next four.
        byte_start: where it begins in the file.
        byte_end: where it ends, exclusive.
        line_start: its first line, from 1; 0 without a file.
        line_end: its last line, inclusive.
        heading: the headings that it stands under, outermost first.
        metadata: as it was given.
        vector_rank: its rank by vector, from 1; None where it was not among those looked at.
        text_rank: its rank by words, likewise.
    """

    id: str
    score: float
    text: str
    path: str
    byte_start: int
    byte_end: int
    line_start: int
    line_end: int
    heading: tuple[str, ...]
    metadata: Mapping[str, Any]
    vector_rank: int | None = None
    text_rank: int | None = None
