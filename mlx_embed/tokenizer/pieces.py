"""PieceTokenizer: ids put together from what `tokenizers` makes of pieces of texts, which it is asked once each."""

from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from custom_kernels import cpu
from custom_kernels.cpu import settings
from custom_kernels.cpu.pieces import LOOK_UP, PieceMemory
from custom_kernels.cpu.subwords import Subwords
from mlx_embed.ids import Ids, Int64, ends
from mlx_embed.tokenizer import subwords
from mlx_embed.tokenizer.beginnings import breaks_at_lines, breaks_at_spaces, closes_gaps
from mlx_embed.tokenizer.classes import state
from mlx_embed.tokenizer.tokens import Encoded, Frame

# Pieces that are remembered: some 10 MB.
CAPACITY = 2**17
# How often new pieces are learnt for some texts before the library makes their ids: another thread may have emptied a
# memory that was full.
TRIES = 3
# What may be spent, in bytes of texts, on pieces that have not come again yet; a window of which more is new is the
# library's, and a part of its pieces is learnt.
CREDIT, PART = 2**20, 1 / 16
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
        added = library.get_added_tokens_decoder()
        model = state(library.model)
        self._unknown = _unknown(library, model)
        self._written = added[self._unknown].content if self._unknown in added else ""
        self._added = np.array(sorted(set(added) - {self._unknown}), dtype=np.int32)
        self._threads = settings.threads()
        self._credit = CREDIT
        known = subwords.rules(library, model)
        rules = None if known is None else Subwords(known)
        self._memory = PieceMemory(CAPACITY, frame.before, frame.after, breaks_at_lines(library), rules)

    def __call__(self, texts: list[str], whole: bool = False) -> Ids | None:
        """The ids of each text; None where the library is to make them, as so much of the texts is new.

        With `whole`, all that is new is learnt, whatever that costs.

        Raises:
            UnicodeEncodeError: a lone surrogate.
        """
        if not texts:
            return Ids.of([])
        joined = "\0".join(texts).encode()
        if joined.count(0) != len(texts) - 1:  # zeros in texts, in whose place stands what is too long to be a piece
            joined = "\0".join("\1" * TOO_LONG if "\0" in text else text for text in texts).encode()
        for attempt in range(TRIES):
            found = self._memory.read(joined, len(texts), self._threads)
            if found is not None:
                flat, offsets, lengths = found
                left = int(lengths[-1])
                if self._credit < CREDIT:
                    saved = len(joined) * (len(texts) - left) // len(texts)
                    self._credit = CREDIT if whole else min(self._credit + saved, CREDIT)
                read = Ids(flat, offsets)
                return self._whole(texts, read, lengths[:-1]) if left else read
            if not self._learn(joined, len(texts), 2**62 if whole else self._credit, renew=attempt == 0):
                break
        return None

    def _learn(self, joined: bytes, count: int, budget: int, *, renew: bool) -> bool:
        """Ask for the pieces that are new; for a part of them only, and False, where that costs more."""
        starts, stops, whole = self._memory.unknown(joined, count, budget)
        if not whole:
            some = max(int(PART * len(starts)), 1)
            starts, stops = starts[:some], stops[:some]
        self._credit -= LOOK_UP * len(starts) + int((stops - starts).sum()) if whole else 0
        pieces = [joined[start:stop].decode() for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        made = Encoded(self._library.encode_batch_fast(pieces, add_special_tokens=False)).ids
        left = _any(made, np.isin(made.flat, self._added))
        for place in np.flatnonzero(_any(made, made.flat == self._unknown)) if self._written else ():
            left[place] |= self._is_written(pieces[place])
        self._memory.learn(joined, starts, stops, made.flat, made.offsets, left, renew=renew)
        return whole

    def _is_written(self, piece: str) -> bool:
        """Whether the unknown token may stand in a piece as such."""
        normalizer = self._library.normalizer
        texts = [piece] if normalizer is None else [piece, normalizer.normalize_str(piece)]
        return any(self._written.lower() in text.lower() for text in texts)

    def _whole(self, texts: list[str], read: Ids, lengths: Int64) -> Ids:
        """The ids of all texts: those that were read, and the library's of those that were left."""
        left = np.flatnonzero(lengths < 0)
        made = Encoded(
            self._library.encode_batch_fast([texts[place] for place in left], add_special_tokens=len(self._frame) > 0)
        ).ids
        flat = np.concatenate([read.flat, made.flat])
        both = Ids(flat, np.concatenate([read.offsets, len(read.flat) + made.offsets[1:]]))
        places = np.arange(len(texts))
        places[left] = len(texts) + np.arange(len(left))
        return both[places]


def _any(ids: Ids, flags: "npt.NDArray[np.bool_]") -> "npt.NDArray[np.bool_]":
    """Whether a flag is set in each row."""
    before = ends(flags.astype(np.int64))[ids.offsets]
    return np.asarray(before[1:] > before[:-1])


def _unknown(library: Tokenizer, model: dict[str, Any]) -> int:
    """The id of what the model does not know; -1 where there is none."""
    found = model.get("unk_id") if "unk_id" in model else library.token_to_id(str(model.get("unk_token")))
    return -1 if found is None else int(found)


def known(library: Tokenizer) -> bool:
    """Whether the ids of a text are those of its pieces, one after the other."""
    drawn = any(getattr(library.model, name, None) for name in ("dropout", "alpha", "nbest_size"))  # by chance
    return not drawn and not library.encode_special_tokens and breaks_at_spaces(library) and not closes_gaps(library)


def maker(library: Tokenizer, frame: Frame) -> "PieceTokenizer | None":
    """A PieceTokenizer; None without the native library."""
    return PieceTokenizer(library, frame) if cpu.available() else None
