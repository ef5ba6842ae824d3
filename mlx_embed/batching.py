"""Token ids to packed batches under a token budget, longest texts first, and back to the texts' order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]

# Attention pads a batch to its longest text. A text that would leave the block emptier than this goes to the next
# batch, unless this one is still too small to be worth a forward pass of its own.
MAX_PADDING = 2.0
MIN_TOKENS = 1024


@dataclass(frozen=True)
class Batch:
    """Texts laid end to end.

    Attributes:
        texts: [n], which of the given texts these are.
        input_ids: [T].
        cu_seqlens: [n + 1], the start of each text, and T. Filler sequences may follow the n texts.
        max_seqlen: no sequence is longer.
    """

    texts: Int32
    input_ids: Int32
    cu_seqlens: Int32
    max_seqlen: int


def pack(
    ids: Sequence[Sequence[int]], batch_tokens: int, *, bucketed: bool, max_texts: int | None = None
) -> Iterator[Batch]:
    """Cut texts into batches of at most `batch_tokens` tokens and `max_texts` texts; a longer text is one of its own.

    With `bucketed`, shapes are rounded up to few sizes by filler sequences, so that few graphs are compiled.
    """
    lengths = np.fromiter((len(row) for row in ids), dtype=np.int32, count=len(ids))
    order = np.argsort(-lengths, kind="stable").astype(np.int32)
    start = 0
    while start < len(order):
        end = _cut(lengths[order[start:]][:max_texts], batch_tokens) + start
        texts = order[start:end]
        yield _batch([ids[i] for i in texts], texts, bucketed)
        start = end


def bucket(n: int, smallest: int = 16) -> int:
    """`n` rounded up to one of the sizes in use: four to each doubling, at least `smallest`."""
    if n <= smallest:
        return smallest
    step = max(1 << max((n - 1).bit_length() - 3, 0), 1)
    return -(-n // step) * step


def _cut(lengths: Int32, batch_tokens: int) -> int:
    """How many texts of descending `lengths` make the next batch."""
    total = np.cumsum(lengths, dtype=np.int64)
    block = lengths[0] * np.arange(1, len(lengths) + 1, dtype=np.int64)
    too_many = total > batch_tokens
    too_sparse = (block > MAX_PADDING * total) & (total > MIN_TOKENS)
    stop = np.flatnonzero(too_many | too_sparse)
    return max(int(stop[0]), 1) if len(stop) else len(lengths)


def _batch(rows: list[Sequence[int]], texts: Int32, bucketed: bool) -> Batch:
    lengths = [len(row) for row in rows]
    total, longest = sum(lengths), max(lengths)
    if bucketed:
        longest = bucket(longest)
        size = bucket(total)
        # Filler sequences take up the tokens that the bucket adds; empty ones round up their number.
        full, rest = divmod(size - total, longest)
        lengths += [longest] * full + [rest] * (rest > 0)
        lengths += [0] * (bucket(len(lengths), smallest=1) - len(lengths))
    else:
        size = total
    input_ids = np.zeros(size, dtype=np.int32)
    input_ids[:total] = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows])
    cu_seqlens = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    return Batch(texts, input_ids, cu_seqlens, longest)
