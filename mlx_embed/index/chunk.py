"""What an index has of a file: its state, and its chunks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

# What metadata may hold: JSON values without structure, so that a filter can compare them.
Value: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class FileStat:
    """A file's state when it was read; one that has the same size and time is taken for unchanged without being read.

    Attributes:
        size: bytes.
        mtime_ns: when it was changed, nanoseconds since 1970; 0 where a change could come within the same tick of the
            file system's clock, so that the file is read again the next time.
        sha256: of its bytes, in hexadecimal.
    """

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Chunk:
    """A passage of a file, short enough for the model.

    Attributes:
        text: what is embedded and shown. Of a file of text it is `file_bytes[byte_start:byte_end].decode()`.
        path: the file's, as the index names it.
        byte_start: where it begins in the file; in HTML the place of its source, in rows the row's, and 0 where the
            bytes are no text (PDF, DOCX, Parquet).
        byte_end: where it ends, exclusive.
        line_start: its first line, from 1; of a PDF the page, of a DOCX the paragraph, and of Parquet the row.
        line_end: its last line, inclusive.
        heading: the headings or definitions that it stands under, outermost first.
        ordinal: its place among the file's chunks, from 0.
        metadata: what filters may ask for.
    """

    text: str
    path: str
    byte_start: int
    byte_end: int
    line_start: int
    line_end: int
    heading: tuple[str, ...] = ()
    ordinal: int = 0
    metadata: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class FileChange:
    """A file that is new or has changed, with all of its chunks.

    Attributes:
        path: as the index names it.
        stat: its state when the chunks were made of it.
        chunks: in the file's order.
    """

    path: str
    stat: FileStat
    chunks: tuple[Chunk, ...]
