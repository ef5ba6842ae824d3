"""Token ids to packed batches under a token budget, longest texts first, and back to the texts' order."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_embed.ids import Ids, Int32, Int64

# Padded attention lays a batch out as a block as wide as its longest text. A text that would leave the block emptier
# than this goes to the next batch, unless the block is still too small to be worth a forward pass of its own, or
# `ragged` says that attention will hardly be padded.
MAX_PADDING = 2
MIN_BLOCK = 4096

# Token counts of bucketed batches: these, so that a query grows by a quarter at most; two to each doubling after them.
# 15 is the most rows that MLX multiplies with a matrix as it does a few vectors, on Metal, in 16 bits.
SMALL_SIZES = (6, 8, 10, 12, 15, 16, 20, 24, 32)
SHORTEST = 4

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Batch:
    """Texts laid end to end.

    Attributes:
        texts: [n], which of the given texts these are.
        input_ids: [T].
        cu_seqlens: [n + 1], the start of each text, and T. A text may have no token, but T is at least 1. Filler
            sequences may follow the n texts.
        max_seqlen: no sequence is longer.
        token_type_ids: [T], of pairs of texts: which of the two a token is of. None is 0 throughout.
        unseen: [T], 1 where no token attends to this one. None is 0 throughout.
        of: how many texts this and the batches cut with it have together; None is no more than these.
    """

    texts: Int32
    input_ids: Int32
    cu_seqlens: Int32
    max_seqlen: int
    token_type_ids: Int32 | None = None
    unseen: Int32 | None = None
    of: int | None = None

    @property
    def shape(self) -> Shape:
        """(T, sequences, max_seqlen): what a graph is compiled for."""
        return len(self.input_ids), len(self.cu_seqlens) - 1, self.max_seqlen

    @property
    def tokens(self) -> Int64:
        """Where the texts' own tokens are, and not fillers', in the order of the texts."""
        starts, stops = self.cu_seqlens[:-1][: len(self.texts)], self.cu_seqlens[1:][: len(self.texts)]
        lengths = stops - starts
        found: Int64 = np.arange(lengths.sum()) + np.repeat(stops - np.cumsum(lengths), lengths)
        return found


def packed_batches(
    ids: Sequence[Sequence[int]],
    batch_tokens: int,
    *,
    bucketed: bool,
    padded: bool = True,
    ragged: bool = False,
    max_texts: int | None = None,
    token_types: Sequence[Sequence[int]] | None = None,
    unseen: Sequence[Sequence[int]] | None = None,
) -> Iterator[Batch]:
    """Cut texts, longest first, into batches of at most `batch_tokens` tokens and `max_texts` texts.

    A text of more tokens is a batch of its own.

    With `bucketed`, batches have one of the `packed_shapes`, by filler sequences, so that few graphs are compiled.
    Unless `padded`, nothing pads a batch to its longest text, and texts of any lengths may share it; no buckets then.
    With `ragged`, nothing should, but in need something may: texts of any lengths share a batch as long as its block is
    no larger than a full one's may be. `token_types` are the types of `ids`, as long as they, and so is `unseen`. `Ids`
    are used as they lie; rows of another kind are laid end to end first.
    """
    ids = Ids.of(ids)
    beside = [None if given is None else Ids.of(given).flat for given in (token_types, unseen)]
    lengths, starts = ids.lengths, ids.offsets[:-1]
    room, bucket = _room(batch_tokens, ragged), batch_tokens if bucketed else None
    if len(lengths) == 1:  # a query: there is nothing to sort or to cut, which would take some time
        yield _batch(ids.flat, beside, starts, lengths, np.zeros(1, dtype=np.int32), bucket, room, 1)
        return
    order = np.argsort(-lengths, kind="stable").astype(np.int32)
    start = 0
    while start < len(order):
        end = _cut(lengths[order[start:]][:max_texts], batch_tokens, padded, room) + start
        texts = order[start:end]
        yield _batch(ids.flat, beside, starts[texts], lengths[texts], texts, bucket, room, len(order))
        start = end


def packed_shapes(batch_tokens: int, longest: int, *, ragged: bool = False) -> set[Shape]:
    """Every shape that bucketed batches of texts up to `longest` tokens can have, whatever the texts."""
    room = _room(batch_tokens, ragged)
    totals = {_size(n, batch_tokens) for n in range(max(batch_tokens, longest) + 1)}
    widths = {_width(n) for n in range(longest + 1)}
    fit = ((size, width) for size in totals for width in widths if width <= max(2 * size - 1, SHORTEST))
    return {(size, n, width) for size, width in fit for n in _rows(size, width, room)}


def _size(total: int, batch_tokens: int) -> int:
    """The size of a bucketed batch: at most `batch_tokens`, so that full batches are of one size."""
    if total <= SMALL_SIZES[-1]:
        size = SMALL_SIZES[bisect_left(SMALL_SIZES, total)]
    else:
        half = 1 << ((total - 1).bit_length() - 2)
        size = -(-total // half) * half
    return min(size, batch_tokens) if total <= batch_tokens else size


def _width(longest: int) -> int:
    """`max_seqlen` of a bucketed batch: a power of two."""
    return max(SHORTEST, 1 << max(longest - 1, 0).bit_length())


def _room(batch_tokens: int, ragged: bool) -> int:
    """The places of a block that may be empty to any extent, of batches of MIN_BLOCK tokens or more."""
    return max(MAX_PADDING * batch_tokens, MIN_BLOCK) if ragged else MIN_BLOCK


def _rows(size: int, width: int, room: int) -> tuple[int, int]:
    """The two numbers of sequences that a bucketed batch can have: what `_cut` lets through, fillers included."""
    full = -(-size // width)
    if size >= room:
        return full, MAX_PADDING * full
    if size >= MIN_BLOCK:
        return MAX_PADDING * full, full + room // width
    return MAX_PADDING * full, MAX_PADDING * full + MIN_BLOCK // width


def _cut(lengths: Int32, batch_tokens: int, padded: bool, room: int) -> int:
    """How many texts of descending `lengths` make the next batch."""
    total = np.cumsum(lengths, dtype=np.int64)
    stop = total > batch_tokens
    if padded:
        block = _width(int(lengths[0])) * np.arange(1, len(lengths) + 1, dtype=np.int64)
        stop |= (block > MAX_PADDING * total) & (block > np.where(total >= MIN_BLOCK, room, MIN_BLOCK))
    return max(int(stop.argmax()), 1) if stop.any() else len(lengths)


def _batch(
    flat: Int32,
    beside: Sequence[Int32 | None],
    starts: Int64,
    lengths: Int32,
    texts: Int32,
    bucket: int | None,
    room: int,
    of: int,
) -> Batch:
    """Lay texts end to end; with `bucket`, the batches' token budget, in one of the `packed_shapes`."""
    n = len(lengths)
    total, longest = (int(lengths.sum()), int(lengths.max())) if n > 1 else (int(lengths[0]),) * 2
    # No array may be empty: where no text has a token, a filler sequence of one follows them.
    size, count, longest = max(total, 1), n + (total == 0), max(longest, 1)
    fillers: list[int] = []
    if bucket is not None:
        longest, size = _width(longest), _size(total, bucket)
        # Filler sequences take up the tokens that the size adds, none of them longer than the longest text, whose
        # positions the model is sure to have; empty ones round up their number.
        full, rest = divmod(size - total, longest // 2)
        fillers = [longest // 2] * full + [rest] * (rest > 0)
        count = next(n for n in _rows(size, longest, room) if n >= count + len(fillers))
    cu_seqlens = np.full(count + 1, size, dtype=np.int32)
    cu_seqlens[0] = 0
    cu_seqlens[1 : n + 1] = np.cumsum(lengths) if n > 1 else lengths
    if len(fillers) > 1:  # the last ends at `size`
        cu_seqlens[n + 1 : n + 1 + len(fillers)] = total + np.cumsum(fillers)
    places: Any = slice(int(starts[0]), int(starts[0]) + total)
    if n > 1:
        places = np.arange(total) + np.repeat(starts - cu_seqlens[:n], lengths)
    input_ids = _filled(flat[places], size)
    types, unseen = (None if given is None else _filled(given[places], size) for given in beside)
    return Batch(texts, input_ids, cu_seqlens, longest, types, unseen, of)


def _filled(values: Int32, size: int) -> Int32:
    """The values, and zeros up to `size`."""
    out = np.zeros(size, dtype=np.int32)
    out[: len(values)] = values
    return out
