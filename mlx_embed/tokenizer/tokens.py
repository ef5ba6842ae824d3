"""What a tokenizer makes of texts: their whole ids, then rows of them that a model has room for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers

from mlx_embed.ids import Ids, Int32, Int64, ends


class Tokens(NamedTuple):
    """The token ids of some texts, and how long the texts were.

    Attributes:
        ids: a row a text, special tokens included, none longer than max_length; one a chunk, where texts are split. Of
            a text without any token it is empty.
        counts: int32 [n], each text's tokens, special ones included, before truncation or splitting.
        chunks: int32 [n], the rows of each text.
        weights: float32, one a row: where texts are split, its tokens without special ones and prompt; else 1.
        whole: whether every text was read to its end; else a count above max_length may be too small.
    """

    ids: Ids
    counts: Int32
    chunks: Int32
    weights: npt.NDArray[np.float32]
    whole: bool = True


class Encoded:
    """All tokens of some texts, special ones included.

    Attributes:
        whole: as of `Tokens`.
        beyond: bool [n], which texts go on behind what was read, with more tokens than the model takes; None for none.
    """

    def __init__(
        self,
        made: Ids | list[tokenizers.Encoding],
        whole: bool = True,
        beyond: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Take ids, or what the library has made, which holds Python's lock when it is asked for its ids."""
        self._made = made
        self.whole = whole
        self.beyond = beyond

    def __len__(self) -> int:
        return len(self._made)

    @property
    def lengths(self) -> Int32:
        """int32 [n], the tokens of each text."""
        if isinstance(self._made, Ids):
            return self._made.lengths
        return np.fromiter(map(len, self._made), dtype=np.int32, count=len(self._made))

    @property
    def ids(self) -> Ids:
        """A row a text."""
        if isinstance(self._made, Ids):
            return self._made
        offsets = ends(self.lengths)
        flat = np.fromiter(chain.from_iterable(one.ids for one in self._made), dtype=np.int32, count=offsets[-1])
        return Ids(flat, offsets)

    def take(self, places: Sequence[int]) -> "Encoded":
        """Some of the texts."""
        made, beyond = self._made, None if self.beyond is None else self.beyond[list(places)]
        return Encoded(made[places] if isinstance(made, Ids) else [made[place] for place in places], self.whole, beyond)


@dataclass(frozen=True)
class Frame:
    """What stands around the tokens of a text.

    Attributes:
        before: special tokens in front of it.
        after: those behind it.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    def cut(self, encoded: Encoded, max_length: int, left: bool) -> Tokens:
        """Rows of at most max_length tokens, special ones included: of longer texts the beginning, or the end."""
        whole = ids = encoded.ids
        counts = whole.lengths
        if len(whole.flat) > max_length and counts.max() > max_length:
            starts, stops = self._texts(whole)
            room = max_length - len(self)
            first = np.maximum(starts, stops - room) if left else starts
            last = stops if left else np.minimum(stops, starts + room)
            ids = self._rows(whole, starts, stops, [(first, last)])
        chunks, weights = _ones(len(ids))
        return Tokens(ids, counts, chunks, weights, encoded.whole)

    def split(self, encoded: Encoded, max_length: int, head: int, overlap: int) -> Tokens:
        """Rows of at most max_length tokens: chunks that share `overlap` tokens with the one before.

        Each has the text's first `head` tokens in front, a prompt's.
        """
        whole = encoded.ids
        starts, stops = self._texts(whole)
        body = np.minimum(starts + head, stops)
        room = max_length - len(self) - head
        chunks = 1 + -(-np.maximum(stops - body - room, 0) // (room - overlap))
        text = np.repeat(np.arange(len(whole)), chunks)
        number = np.arange(len(text)) - np.repeat(ends(chunks)[:-1], chunks)
        first = body[text] + number * (room - overlap)
        last = np.minimum(first + room, stops[text])
        ids = self._rows(whole, starts[text], stops[text], [(starts[text], body[text]), (first, last)])
        weights = np.subtract(ids.lengths, len(self) + head, dtype=np.float32)
        return Tokens(ids, whole.lengths, chunks.astype(np.int32), weights)

    def _texts(self, whole: Ids) -> tuple[Int64, Int64]:
        """Where each text's own tokens start and end."""
        return whole.offsets[:-1] + len(self.before), whole.offsets[1:] - len(self.after)

    def _rows(self, whole: Ids, starts: Int64, stops: Int64, parts: list[tuple[Int64, Int64]]) -> Ids:
        """Rows of parts of texts, whose own tokens are between `starts` and `stops`, with what stands around them."""
        parts = [(starts - len(self.before), starts), *parts, (stops, stops + len(self.after))]
        first, last = (np.stack(bounds, axis=1) for bounds in zip(*parts, strict=True))
        return whole.pieces(first, last)


@lru_cache(maxsize=16)
def _ones(count: int) -> tuple[Int32, npt.NDArray[np.float32]]:
    """So many ones, which cannot be written to; a query's are there already."""
    ones = np.ones(count, dtype=np.int32), np.ones(count, dtype=np.float32)
    for array in ones:
        array.flags.writeable = False
    return ones
