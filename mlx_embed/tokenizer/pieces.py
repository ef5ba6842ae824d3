"""PieceTokenizer: ids put together from what `tokenizers` makes of pieces of texts, which it is asked once each."""

import numpy as np
from tokenizers import Tokenizer

from custom_kernels import cpu
from custom_kernels.cpu import settings
from custom_kernels.cpu.pieces import PieceMemory
from mlx_embed.ids import Ids, Int32, Int64, ends
from mlx_embed.tokenizer.beginnings import breaks_at_spaces
from mlx_embed.tokenizer.classes import state
from mlx_embed.tokenizer.tokens import Encoded, Frame

# Pieces that are remembered: some 10 MB.
CAPACITY = 2**17
# How often new pieces are learnt for some texts before the library makes their ids: another thread may have emptied a
# memory that was full.
TRIES = 3


# Bytes that are too many for a piece that is remembered; pieces.cpp says how many are not.
TOO_LONG = 512


class PieceTokenizer:
    """Makes the ids that `tokenizers` makes, by its own ids of pieces: a word with the white space before it, mostly.

    Pieces of which the library makes added tokens (they may take the space behind them, or change what follows), and
    very long ones, leave a text to the library. It is for tokenizers that are `known`.
    """

    def __init__(self, library: Tokenizer, frame: Frame) -> None:
        """Take the library's tokenizer; `frame` is what it puts around a text.

        Raises:
            RuntimeError, OSError, AttributeError: there is no native library.
        """
        self._library = library
        self._frame = frame
        self._added = np.array(sorted(library.get_added_tokens_decoder()), dtype=np.int32)
        self._threads = settings.threads()
        self._memory = PieceMemory(CAPACITY, frame.before, frame.after)

    def __call__(self, texts: list[str]) -> Ids | None:
        """The ids of each text; None where the library is to make them, with several threads and a memory that is full.

        Raises:
            UnicodeEncodeError: a lone surrogate.
        """
        if not texts:
            return Ids.of([])
        joined = "\0".join(texts).encode()
        if joined.count(0) != len(texts) - 1:  # zeros in texts, in whose place stands what is too long to be a piece
            joined = "\0".join("-" * TOO_LONG if "\0" in text else text for text in texts).encode()
        memory = self._memory
        for attempt in range(TRIES):
            found = memory.read(joined, len(texts), self._threads)
            if found is not None:
                return self._whole(texts, *found)
            self._learn(memory, joined, len(texts), attempt == 0)
        return None

    def _learn(self, memory: PieceMemory, joined: bytes, count: int, renew: bool) -> None:
        starts, stops = memory.unknown(joined, count, len(joined) // 2 + count)
        pieces = [joined[start:stop].decode() for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        made = Encoded(self._library.encode_batch_fast(pieces, add_special_tokens=False)).ids
        added = ends(np.isin(made.flat, self._added).astype(np.int64))[made.offsets]
        memory.learn(joined, starts, stops, made.flat, made.offsets, added[1:] > added[:-1], renew=renew)

    def _whole(self, texts: list[str], flat: Int32, lengths: Int64) -> Ids:
        if len(lengths) == 1 and lengths[0] >= 0:
            return Ids(flat, np.array([0, len(flat)]))
        left = np.flatnonzero(lengths < 0)
        if not len(left):
            return Ids(flat, ends(lengths))
        made = Encoded(
            self._library.encode_batch_fast([texts[place] for place in left], add_special_tokens=len(self._frame) > 0)
        ).ids
        lengths[left] = 0
        read = Ids(flat, ends(lengths))
        both = Ids(np.concatenate([read.flat, made.flat]), np.concatenate([read.offsets, len(flat) + made.offsets[1:]]))
        places = np.arange(len(texts))
        places[left] = len(texts) + np.arange(len(left))
        return both[places]


def known(library: Tokenizer) -> bool:
    """Whether the ids of a text are those of its pieces, one after the other."""
    steady = not state(library.model).get("dropout") and not library.encode_special_tokens
    return steady and breaks_at_spaces(library)


def maker(library: Tokenizer, frame: Frame) -> "PieceTokenizer | None":
    """A PieceTokenizer; None without the native library."""
    return PieceTokenizer(library, frame) if cpu.available() else None
