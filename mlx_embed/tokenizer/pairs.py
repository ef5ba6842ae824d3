"""Pairs of texts to token ids and types, as rerankers take them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models

from mlx_embed.checkpoint import Checkpoint
from mlx_embed.errors import CheckpointError
from mlx_embed.ids import Ids, Int32
from mlx_embed.tokenizer import Tokenizer
from mlx_embed.tokenizer.fast import FastTokenizer
from mlx_embed.tokenizer.panics import is_the_librarys


@dataclass(frozen=True)
class PairFrame:
    """What stands around the tokens of two texts.

    Attributes:
        ids: the special tokens before, between and behind the texts: three rows.
        types: theirs, likewise.
        of_texts: the type of each text's tokens.
    """

    ids: Ids
    types: Ids
    of_texts: tuple[int, int]

    @classmethod
    def of(cls, library: tokenizers.Tokenizer, special: bool) -> "PairFrame":
        """What a tokenizer's post-processor makes of two texts, with special tokens or without.

        Raises:
            CheckpointError: it changes the texts' own tokens.
        """
        texts = (2**32 - 1, 2**32 - 2)  # the ids of tokens that no vocabulary has
        any_texts: Any = tokenizers.Tokenizer(models.WordLevel(dict(zip("ab", texts, strict=True)), unk_token="a"))
        any_texts.post_processor = library.post_processor
        made = any_texts.encode("a", "b", add_special_tokens=special)
        places = [place for place, number in enumerate(made.ids) if number in texts]
        if tuple(made.ids[place] for place in places) != texts:
            raise CheckpointError("tokenizer.json has a post-processor that changes the tokens of a pair's texts.")
        parts = [slice(before + 1, place) for before, place in pairwise([-1, *places, len(made.ids)])]
        ids, types = (Ids.of([row[part] for part in parts]) for row in (made.ids, made.type_ids))
        return cls(ids, types, (made.type_ids[places[0]], made.type_ids[places[1]]))


class PairTokenizer:
    """A checkpoint's tokenizer for pairs of texts, which are cut at the longer one until both fit.

    Attributes:
        max_length: tokens at which pairs are cut, special tokens included.
        token_types: whether the model is told which of a pair's texts a token is of.
        cut_left: whether texts lose their beginnings rather than their ends.
    """

    def __init__(self, checkpoint: Checkpoint, max_length: int) -> None:
        """Read tokenizer.json or vocabulary files; CheckpointError where they are missing, broken, or leave no room."""
        self._texts = Tokenizer(replace(checkpoint, special_tokens=False), max_length)
        self.max_length = max_length
        self.token_types, self.cut_left = self._texts.token_types, self._texts.cut_left
        try:  # a broken tokenizer fails here rather than at the first question
            self._frame = PairFrame.of(self.library, checkpoint.special_tokens)
        except CheckpointError:
            raise
        except BaseException as error:
            if not is_the_librarys(error):
                raise
            raise CheckpointError(f"The tokenizer of {checkpoint.transformer} is broken: {error}.") from error
        self._room = max_length - len(self._frame.ids.flat)
        if self._room < 1:
            raise CheckpointError(f"A maximum of {max_length} tokens leaves no room for texts beside special tokens.")
        self([("a", "b")])

    def beside(self, prompt: str) -> int:
        """How many tokens there are with a pair that are not of its texts."""
        return len(self._frame.ids.flat) + self._texts.prompt_length(prompt)

    def beginning(self, text: str, tokens: int) -> str:
        """As `Tokenizer.beginning`."""
        return self._texts.beginning(text, tokens)

    @property
    def library(self) -> tokenizers.Tokenizer:
        """The library's own tokenizer, which neither pads nor cuts."""
        return self._texts.library

    @property
    def fast(self) -> FastTokenizer | None:
        """What makes the library's ids of texts in less time."""
        return self._texts.fast

    def __call__(self, pairs: Sequence[tuple[str, str]], prompt: str = "") -> tuple[Ids, Ids]:
        """The token ids of each pair, special tokens included, and the tokens' types, 0 or 1.

        `prompt` goes before the first text of each. A first text that comes again is tokenized once.
        """
        queries: dict[str, int] = {}
        first = np.array([queries.setdefault(query, len(queries)) for query, _ in pairs], dtype=np.int64)
        texts = [*(prompt + query for query in queries), *(document for _, document in pairs)]
        encoded = self._texts.encode(texts, whole=False)
        texts_of_both = encoded.ids
        lengths = texts_of_both.lengths
        places = (first, np.arange(len(queries), len(texts)))
        if not encoded.whole and (np.minimum(lengths[places[0]], lengths[places[1]]) > self._room).any():
            texts_of_both = self._texts.encode(texts).ids  # which of two long texts is the longer decides on a token
            lengths = texts_of_both.lengths
        kept = _kept(lengths[places[0]], lengths[places[1]], self._room)
        ids = self._laid_out(self._frame.ids, texts_of_both.flat, texts_of_both.offsets, places, kept)
        split = texts_of_both.offsets[len(queries)]
        types = np.full(len(texts_of_both.flat), self._frame.of_texts[1], dtype=np.int32)
        types[:split] = self._frame.of_texts[0]
        return ids, self._laid_out(self._frame.types, types, texts_of_both.offsets, places, kept)

    def _laid_out(self, frame: Ids, flat: Int32, offsets: Any, places: Any, kept: Any) -> Ids:
        """Rows of two texts each, at their places in `flat`, within a frame; so many of each text's are kept."""
        whole = Ids(np.concatenate([frame.flat, flat]), offsets)
        starts, stops = np.empty((2, len(kept[0]), 5), dtype=np.int64)
        starts[:, ::2], stops[:, ::2] = frame.offsets[:-1], frame.offsets[1:]
        for column, place, count in zip((1, 3), places, kept, strict=True):
            begin, end = (offsets[place + side] + len(frame.flat) for side in (0, 1))
            starts[:, column] = end - count if self.cut_left else begin
            stops[:, column] = starts[:, column] + count
        return whole.pieces(starts, stops)


def _kept(first: Int32, second: Int32, room: int) -> tuple[Int32, Int32]:
    """How many tokens are kept of two texts of so many: the longer loses tokens until both have the same."""
    fewer = np.minimum(np.minimum(first, second), room // 2)
    over, longer = first + second > room, first > second
    return (
        np.where(over, np.where(longer, room - fewer, fewer), first),
        np.where(over, np.where(longer, fewer, room - fewer), second),
    )
