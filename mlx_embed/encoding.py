"""Encoding: what a call of `encode` was told, and its texts on their way to vectors."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mlx_embed.engine import Engine, Head
from mlx_embed.pooling import mean_of_chunks
from mlx_embed.tokenizer import Tokenizer
from mlx_embed.window import Window

Float32: TypeAlias = npt.NDArray[np.float32]
Int32: TypeAlias = npt.NDArray[np.int32]


class Encoded(NamedTuple):
    """What comes of n texts.

    Attributes:
        vectors: float32 [n, dim].
        counts: int32 [n], each text's tokens before truncation, special ones included.
        chunks: int32 [n], into how many chunks each was split.
        whole: whether every text was read to its end; else a count above the tokenizer's may be too small.
    """

    vectors: Float32
    counts: Int32
    chunks: Int32
    whole: bool


@dataclass
class Encoding:
    """How texts are embedded, and, of those that have begun, what is not known of their tokens.

    Attributes:
        engine: which computes.
        head: of that engine.
        tokenizer: which makes token ids.
        prefix: the prompt in front of each text.
        overlap: of the chunks that a text is split into, in tokens; None cuts it instead.
        budget: tokens of a batch.
        max_texts: texts of a batch.
        dim: the length of the head's vectors.
        unit: whether the mean of chunks is scaled to length 1.
        refuses: whether a text that is too long is an error.
        counted: whether texts are read to their ends, so that counts are right.
        characters: of a text that are read for each token that the model takes; None reads all.
    """

    engine: Engine
    head: Head
    tokenizer: Tokenizer
    prefix: str
    overlap: int | None
    budget: int
    max_texts: int | None
    dim: int
    unit: bool
    refuses: bool
    counted: bool
    characters: int | None
    _unread: list[npt.NDArray[np.bool_]] = field(default_factory=list)

    def begun(self, windows: Iterable[list[str]], advance: Callable[[int], Any]) -> Iterator[Window]:
        """Each window of texts, once it is tokenized and its computation has begun.

        Raises:
            ValueError: a text that is too long, where those are refused; its index is named.
        """
        done = 0
        for window in windows:
            if self.characters is not None:
                most = max(self.characters * self.tokenizer.max_length - len(self.prefix), 0)
                self._unread.append(np.array([len(text) > most for text in window]))
                window = [text[:most] for text in window]
            encoded = self.tokenizer.encode(window, self.prefix, whole=self.counted)
            if self.refuses:
                _check_lengths(encoded.lengths, done, self.tokenizer.max_length)
            done += len(window)
            tokens = partial(self.tokenizer.tokens, encoded, self.prefix, self.overlap)
            begun = Window(self.engine, self.head, tokens, self.budget, self.max_texts, advance)
            del encoded, tokens  # they are the window's alone now
            yield begun

    def together(self, begun: Iterable[Window], total: int | None) -> Encoded:
        """The vectors of all windows that have begun, as they are computed; `total` is the number of texts, if known.

        With it, each window's go to their place at once, while the next are computed.
        """
        placed = None if total is None else np.empty((total, self.dim), dtype=np.float32)
        parts = [np.zeros((0, self.dim), dtype=np.float32)]
        counts, chunks = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int32)]
        done, whole = 0, True
        for window in begun:
            vectors = mean_of_chunks(window.rows(), window.weights, window.chunks, self.unit)
            if placed is None:
                parts.append(vectors)
            else:
                placed[done : done + len(vectors)] = vectors
            done += len(vectors)
            counts.append(window.counts)
            chunks.append(window.chunks)
            whole &= window.whole
        all_counts = np.concatenate(counts)
        if self._unread:  # what is behind was not counted
            behind = np.concatenate(self._unread)
            all_counts = np.where(behind, np.maximum(all_counts, self.tokenizer.max_length + 1), all_counts)
            whole &= not behind.any()
        vectors = np.concatenate(parts) if placed is None else placed[:done]
        return Encoded(vectors, all_counts, np.concatenate(chunks), whole)


@dataclass(frozen=True)
class Call:
    """What a call of `encode` asked for.

    Attributes:
        encoding: of its texts.
        dim: the dimensions of a vector that are wanted.
        truncates: whether texts that are too long are cut.
        output_dtype, ranges: of the vectors, checked.
        show: whether to show a progress bar, as of `encode`.
    """

    encoding: Encoding
    dim: int
    truncates: bool
    output_dtype: str
    ranges: Float32 | None
    show: bool | None


def _check_lengths(counts: Int32, first: int, max_length: int) -> None:
    if (counts > max_length).any():
        index = int(np.argmax(counts > max_length))
        raise ValueError(
            f"texts[{first + index}] has {counts[index]} tokens, and the model takes {max_length}; "
            'cut it, or pass long_text="mean_of_chunks" or "truncate".'
        )
