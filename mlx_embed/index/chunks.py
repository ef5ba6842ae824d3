"""Documents cut into chunks: at the borders of their structure, none longer than the model may see."""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import positive_number, require_list, whole_number
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.errors import StoreMismatchError
from mlx_embed.index.documents import Document
from mlx_embed.index.entries import Chunk
from mlx_embed.texts import WINDOW, windows

# Of how documents are read and cut: other numbers would make other chunks of the same file.
VERSION = 1
DEFAULT_TOKENS = 256
# How strong a border is, where a lower number is stronger; sections have the numbers below these.
PARAGRAPH, LINE, SENTENCE, WORD, CHARACTER = 100, 101, 102, 103, 104
# A chunk has at most so many characters a token: tokenizers make one token of a word of any length, or of none.
CHARACTERS = 32

_PARAGRAPHS = re.compile(r"\n[ \t\r]*\n\s*(?=\S)|\f")
_LINES = re.compile(r"\n")
# Begun only where a run of dots begins: from within one it is tried as often as it is long.
_SENTENCES = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]]*\s+|[。！？]+[”’」』）]*")
_WORDS = re.compile(r"\s+")

Counts: TypeAlias = Sequence[int] | npt.NDArray[np.int32]


class Span(NamedTuple):
    """The part of a document that a chunk is: characters, end exclusive."""

    start: int
    end: int


class _Atom(NamedTuple):
    """A part of a text that is not cut: where it begins, the strength of the border there, and what it weighs."""

    start: int
    border: int
    tokens: int


@dataclass(frozen=True)
class Chunking:
    """How an index makes chunks of files; its `name` is kept in the index.

    Attributes:
        tokens: the longest chunk, in the model's tokens, with its special ones and the prompt of documents.
        overlap: tokens that a chunk may repeat of the one before, in whole sentences or lines; none across headings.
        fields: those that make the text of a row of CSV, JSONL or Parquet.
    """

    tokens: int
    overlap: int
    fields: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """All of it and the version, as one line of JSON."""
        return json.dumps({"version": VERSION, **vars(self), "fields": list(self.fields)})

    @classmethod
    def of(cls, name: str) -> "Chunking":
        """The one of this name.

        Raises:
            StoreMismatchError: it is of another version, or of no chunking at all.
        """
        try:
            found = json.loads(name)
            if found.pop("version") == VERSION:
                return cls(found["tokens"], found["overlap"], tuple(found["fields"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise StoreMismatchError(
            f"The index says of its chunks {name!r}, which this version of mlx-embed does not make: index the files "
            "into a new folder."
        )

    @classmethod
    def checked(
        cls, model: EmbeddingModel, tokens: int | None = None, overlap: int | None = None, fields: Iterable[str] = ()
    ) -> "Chunking":
        """The one of these numbers: None are 256 tokens, or what the model takes where that is less, and an eighth.

        Raises:
            TypeError: no whole numbers, or fields that are no list.
            ValueError: more tokens than the model takes, or an overlap of at least half of them.
        """
        require_list("fields", fields)
        tokens = (
            min(DEFAULT_TOKENS, model.max_seq_length) if tokens is None else positive_number("tokens", tokens, "tokens")
        )
        if tokens > model.max_seq_length:
            raise ValueError(f"Chunks of {tokens} tokens are longer than the model takes, {model.max_seq_length}.")
        overlap = tokens // 8 if overlap is None else whole_number("overlap", overlap)
        if not 0 <= overlap <= tokens // 2:
            raise ValueError(f"An overlap of {overlap} is not within 0..{tokens // 2}, half of a chunk's {tokens}.")
        return cls(tokens, overlap, tuple(fields))


@dataclass(frozen=True)
class Chunker:
    """Cuts documents by what a model's tokenizer makes of them.

    Attributes:
        chunking: how.
        count: the tokens of each text as the model would see it, special ones and prompt included: int [n].
    """

    chunking: Chunking
    count: Callable[[Sequence[str]], Counts]

    @cached_property
    def _around(self) -> int:
        """The tokens of no text."""
        around = int(self.count([""])[0])
        if around >= self.chunking.tokens:
            raise ValueError(
                f"Chunks of {self.chunking.tokens} tokens have no room for text beside the special tokens and the "
                f"prompt, which are {around}."
            )
        return around

    def chunks(self, files: Sequence[tuple[str, Sequence[Document]]]) -> list[list[Chunk]]:
        """The chunks of each file, of which the path and the documents are given: many at once are tokenized faster."""
        spans = iter(self.spans([document for _, documents in files for document in documents]))
        return [list(_chunks(path, documents, spans)) for path, documents in files]

    def spans(self, documents: Sequence[Document]) -> list[list[Span]]:
        """The parts of each document that are chunks: every character that is no space is in one of them."""
        most = CHARACTERS * (self.chunking.tokens - self._around)
        whole = [_trimmed(document.text, 0, len(document.text)) for document in documents]
        short = [i for i, span in enumerate(whole) if 0 < span.end - span.start <= most]
        counts = self.count([documents[i].text[whole[i].start : whole[i].end] for i in short])
        fits = {i for i, count in zip(short, counts, strict=True) if count <= self.chunking.tokens}
        room = self.chunking.tokens - self._around
        return [
            [span] if i in fits else [] if span.start == span.end else self._cut(documents[i], span, room)
            for i, span in enumerate(whole)
        ]

    def _cut(self, document: Document, span: Span, room: int) -> list[Span]:
        """The chunks of a part that is too long for one, none inside of another."""
        atoms = self._atoms(document, span, room)
        spans = [
            _trimmed(document.text, start, end) for start, end in _packed(atoms, span.end, room, self.chunking.overlap)
        ]
        spans = [span for span in spans if span.start < span.end]
        # Tokens of a whole may be more than those of its parts together, by a few, where a tokenizer looks across them.
        counts = self.count([document.text[start:end] for start, end in spans])
        found: list[Span] = []
        for part, count in zip(spans, counts, strict=True):
            # Of less than one character there is no chunk, whatever the tokenizer makes of it.
            fits = count <= self.chunking.tokens or room == 1 or part.end - part.start == 1
            found += [part] if fits else self._cut(document, part, max(room * 3 // 4, 1))
        whole: list[Span] = []
        for part in sorted(found, key=lambda part: (part.start, -part.end)):
            if not whole or part.end > whole[-1].end:
                whole.append(part)
        return whole

    def _atoms(self, document: Document, span: Span, room: int) -> list[_Atom]:
        text = document.text
        borders = {span.start: 0}
        patterns = [(PARAGRAPH, _PARAGRAPHS), (LINE, _LINES)]
        for strength, pattern in patterns if document.code else [*patterns, (SENTENCE, _SENTENCES)]:
            for match in pattern.finditer(text, span.start, span.end):
                borders.setdefault(match.end(), strength)
        for section in document.sections:
            if span.start < section.start < span.end:
                borders[section.start] = section.level
        borders.pop(span.end, None)
        atoms = self._weighed(text, sorted(borders.items()), span.end, room)
        for strength, cut in ((WORD, _words), (CHARACTER, _halves)):
            while any(atom.tokens > room for atom in atoms):
                finer, changed = [], False
                ends = [atom.start for atom in atoms[1:]] + [span.end]
                for atom, end in zip(atoms, ends, strict=True):
                    cuts = cut(text, atom.start, end) if atom.tokens > room else []
                    changed |= bool(cuts)
                    new = [(atom.start, atom.border), *((place, strength) for place in cuts)]
                    finer += self._weighed(text, new, end, room) if cuts else [atom]
                atoms = finer
                if not changed:
                    break
        return atoms

    def _weighed(self, text: str, borders: Sequence[tuple[int, int]], end: int, room: int) -> list[_Atom]:
        ends = [start for start, _ in borders[1:]] + [end]
        parts = [text[start:stop] for (start, _), stop in zip(borders, ends, strict=True)]
        # What is too long by its characters is cut, however few tokens it has, and need not be tokenized.
        counts = iter(self.count([part for part in parts if len(part) // CHARACTERS <= room]))
        weights = [
            length if length > room else max(int(next(counts)) - self._around, length)
            for length in (len(part) // CHARACTERS for part in parts)
        ]
        return [_Atom(start, border, weight) for (start, border), weight in zip(borders, weights, strict=True)]


def counter(model: EmbeddingModel, prompt: str) -> Callable[[Sequence[str]], Counts]:
    """`Chunker.count` of a model, where `prompt` is put before documents; of many texts some at a time.

    The tokenizers library takes a thousand bytes a text and more, and a file of one line has a text a word.
    """
    tokenizer = model.tokenizer

    def count(texts: Sequence[str]) -> Counts:
        counts = [tokenizer.encode(window, prompt).lengths for window in windows(texts, len, WINDOW)]
        return np.concatenate([np.zeros(0, dtype=np.int32), *counts])

    return count


def _packed(atoms: Sequence[_Atom], end: int, room: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Where chunks begin and end, each of as many atoms as there is room for, or fewer where a border is stronger."""
    before = [0, *accumulate(atom.tokens for atom in atoms)]
    first, done = 0, 0
    while done < len(atoms):
        last = done + 1
        while last < len(atoms) and before[last + 1] - before[first] <= room:
            last += 1
        if last < len(atoms):
            half = (before[done] + before[last]) // 2
            ends = [i for i in range(done + 1, last + 1) if before[i] >= half]
            last = min(ends, key=lambda i: (atoms[i].border, -i))
        yield atoms[first].start, atoms[last].start if last < len(atoms) else end
        first = done = last
        if last < len(atoms):
            # What is repeated leaves room for the next atom, so that every chunk has something new.
            spare = min(overlap, room - atoms[last].tokens)
            while (
                overlap and first > 0 and before[last] - before[first - 1] <= spare and atoms[first].border >= PARAGRAPH
            ):
                first -= 1


def _chunks(path: str, documents: Sequence[Document], spans: Iterator[list[Span]]) -> Iterator[Chunk]:
    ordinal = 0
    for document in documents:
        starts = [section.start for section in document.sections]
        for start, end in next(spans):
            heading = _common([s.path for s in document.sections[_before(starts, start) : bisect_left(starts, end)]])
            place = document.places(start, end)
            yield Chunk(document.text[start:end], path, *place, heading, ordinal, document.metadata)
            ordinal += 1


def _before(starts: Sequence[int], start: int) -> int:
    """The section that a place is in; the first, where the place is in front of it."""
    return max(bisect_right(starts, start) - 1, 0)


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What all of some paths begin with."""
    common = min(paths, key=len, default=())
    for path in paths:
        while path[: len(common)] != common:
            common = common[:-1]
    return common


def _trimmed(text: str, start: int, end: int) -> Span:
    """Without empty lines in front and spaces behind; the spaces in front of a first line are its indentation."""
    part = text[start:end]
    first = end - len(part.lstrip())
    line = text.rfind("\n", 0, first) + 1
    start = line if line >= start and not text[line:first].strip(" \t") else first
    return Span(start, max(start, end - len(part) + len(part.rstrip())))


def _words(text: str, start: int, end: int) -> list[int]:
    places = [match.end() for match in _WORDS.finditer(text, start, end)]
    return [place for place in places if start < place < end]


def _halves(text: str, start: int, end: int) -> list[int]:
    return [(start + end) // 2] if end - start > 1 else []
