"""The text of a file, with its structure, and where each part of it stands in the file."""

import codecs
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from mlx_embed import packed
from mlx_embed.index import html, sections
from mlx_embed.index.sections import Section
from mlx_embed.records import reading
from mlx_embed.tokenizer.surrogates import well_formed

_KINDS = {
    "markdown": (".md", ".markdown", ".mdown", ".mkd", ".mdx"),
    "rst": (".rst",),
    "html": (".html", ".htm", ".xhtml", ".svg"),  # a picture has no text here, as within a page
    "python": (".py", ".pyi"),
    "code": (
        *(".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".inl", ".cu", ".cuh", ".metal", ".m", ".mm"),
        *(".rs", ".go", ".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".java", ".kt", ".kts", ".scala", ".cs"),
        *(".swift", ".php", ".rb", ".lua", ".jl", ".sh", ".bash", ".zsh", ".zig", ".dart", ".ex", ".exs", ".pl"),
    ),
    "rows": (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"),
    "pdf": (".pdf",),
    "docx": (".docx",),
}
_BY_SUFFIX = {suffix: kind for kind, suffixes in _KINDS.items() for suffix in suffixes}
# Kinds whose bytes are no text, so that a zero byte among them says nothing.
BINARY_KINDS = ("pdf", "docx", "rows")
_BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
# Characters of a line that are encoded for the offset of one of them.
_BLOCK = 4096
_CHARSET = re.compile(rb"""<meta[^>]{1,200}charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)


class Place(NamedTuple):
    """Where a passage stands in its file: bytes from 0, end exclusive; lines from 1, both inclusive."""

    byte_start: int
    byte_end: int
    line_start: int
    line_end: int


# From the first and last (exclusive) character of a document's text to the place in the file.
Places: TypeAlias = Callable[[int, int], Place]


@dataclass(frozen=True)
class Document:
    """A text to be cut into chunks: a whole file's, or a row's.

    Attributes:
        text: all of it.
        places: says where a part of it stands in the file.
        sections: in their order, where headings and definitions begin and end.
        code: whether it is read by lines rather than by sentences.
        metadata: what its chunks have of it.
    """

    text: str
    places: Places
    sections: Sequence[Section] = ()
    code: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


def kind_of(path: str | Path) -> str:
    """How a file of this name is read: "markdown", "rst", "html", "python", "code", "rows", "pdf", "docx" or "text"."""
    return _BY_SUFFIX.get(packed.inner(Path(path)).suffix.lower(), "text")


def read(path: Path, data: bytes, fields: Sequence[str] = ()) -> list[Document]:
    """The texts of a file whose bytes, unpacked, are `data`; those of rows are in `fields`, joined by a space.

    Raises:
        ValueError: what is not UTF-8 (or, in HTML, not what it says it is), a broken file, a column that is missing.
        ImportError: a PDF, DOCX or Parquet file, without the package that reads it.
    """
    kind = kind_of(path)
    if kind == "rows":
        return list(_rows(path, data, fields))
    if kind in ("pdf", "docx"):
        from mlx_embed.index import office

        parts = office.pdf(path, data) if kind == "pdf" else office.docx(path, data)
        return [_joined(parts)]
    text, encoding, mark = _decoded(path, data, html=kind == "html")
    places = FilePlaces(text, encoding, mark)
    if kind == "html":
        found = html.read(text)
        return [Document(found.text, SourcePlaces(found.starts, found.spans, places), found.sections)]
    return [Document(text, places, sections.of(text, kind), code=kind in ("python", "code"))]


class FilePlaces:
    """The places of a text that is a file's bytes decoded."""

    def __init__(self, text: str, encoding: str = "utf-8", mark: int = 0) -> None:
        """`mark` is the length of the byte order mark in front."""
        self._text, self._encoding, self._mark = text, encoding, mark
        self._lines = [match.end() for match in re.finditer("\n", text)]
        # Where blocks begin, and the bytes in front of each: for the offset of a chunk one block is encoded, not all.
        self._blocks: list[int] | None = None
        self._bytes: list[int] = []
        if not text.isascii():
            step = _BLOCK if encoding == "utf-8" else len(text)  # in some others two characters may be one code
            lines = pairwise([0, *self._lines, len(text)])
            self._blocks = [place for start, end in lines for place in range(start, end, step)]
            sizes = (self._size(start, end) for start, end in pairwise([*self._blocks, len(text)]))
            self._bytes = [*accumulate(sizes, initial=mark)]

    def _size(self, start: int, end: int) -> int:
        return len(self._text[start:end].encode(self._encoding))

    def __call__(self, start: int, end: int) -> Place:
        """The place of the characters from `start` to `end`."""
        first = bisect_right(self._lines, start)
        last = max(first, bisect_left(self._lines, end))
        return Place(self._byte(start), self._byte(end), first + 1, last + 1)

    def _byte(self, character: int) -> int:
        if self._blocks is None:
            return self._mark + character
        block = bisect_right(self._blocks, character) - 1
        return self._bytes[block] + self._size(self._blocks[block], character)


class SourcePlaces:
    """The places of a text that was put together from spans of a source: of a part, that of the spans it touches."""

    def __init__(self, starts: Sequence[int], spans: Sequence[tuple[int, int]], source: Places) -> None:
        """`starts` says where each span's text begins, and `source` where a span stands in the file."""
        self._starts, self._spans, self._source = starts, spans, source

    def __call__(self, start: int, end: int) -> Place:
        """The place of all spans that the characters from `start` to `end` are of."""
        first = max(bisect_right(self._starts, start) - 1, 0)
        last = max(bisect_left(self._starts, end) - 1, first)
        return self._source(self._spans[first][0], self._spans[last][1])


def _lines_alone(start: int, end: int) -> Place:
    """The place of spans that are numbers of pages, paragraphs or rows."""
    return Place(0, 0, start, end)


def _joined(parts: Sequence[tuple[str, int, str]]) -> Document:
    """A document of (text, heading level or 0, title) paragraphs or pages, which are numbered from 1."""
    starts, spans, texts, headings, position = [], [], [], [], 0
    for number, (text, level, title) in enumerate(parts, start=1):
        starts.append(position)
        spans.append((number, number))
        if level:
            headings.append((position, level, title))
        texts.append(text + "\n\n")
        position += len(texts[-1])
    if not starts:
        return Document("", _lines_alone)
    return Document("".join(texts), SourcePlaces(starts, spans, _lines_alone), sections.nested(headings))


def _rows(path: Path, data: bytes, fields: Sequence[str]) -> Iterator[Document]:
    source = reading.source(str(path), None, fields)
    binary = source.format == "parquet"
    ends = [] if binary else [match.end() for match in re.finditer(b"\n", data)]
    for record in _sound(path, reading.records(source)):
        first, last = record.lines
        place = Place(0, 0, first, last)
        if not binary:
            end = ends[last - 1] if last <= len(ends) else len(data)
            place = Place(ends[first - 2] if first > 1 else 0, end, first, last)
        metadata: dict[str, Any] = {} if record.id is None else {"id": _id(record.id)}
        yield Document(well_formed(record.text), lambda start, end, place=place: place, metadata=metadata)  # type: ignore[misc]


def _sound(path: Path, records: Iterator[reading.Record]) -> Iterator[reading.Record]:
    """The records; the file has been read, so that an OSError, such as pyarrow's, is of what is in it."""
    try:
        yield from records
    except OSError as error:
        raise ValueError(f"{path} is broken: {error}") from error


def _id(found: Any) -> Any:
    """A row's id as metadata: what CSV has as the text of a whole number is that number, to compare with."""
    if not isinstance(found, str):
        return found
    number = found.isascii() and found.isdecimal() and len(found) < 19 and str(int(found)) == found
    return int(found) if number else well_formed(found)


def _decoded(path: Path, data: bytes, *, html: bool) -> tuple[str, str, int]:
    """A file's text, its encoding, and the length of the byte order mark in front."""
    for bom, name in _BYTE_ORDER_MARKS.items():
        if data.startswith(bom):
            raise ValueError(f"{path} is {name}, where UTF-8 is needed.")
    mark = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:
        return data[mark:].decode("utf-8"), "utf-8", mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, mark + error.start) + 1
        if html and (declared := _CHARSET.search(data[:4096])):
            encoding = declared[1].decode("ascii")
            try:
                text = data.decode(encoding)
                if text.encode(encoding) == data:
                    return text, encoding, 0
            except (LookupError, UnicodeError):
                pass
        raise ValueError(f"{path}:{line} is not UTF-8: {error.reason}.") from error
