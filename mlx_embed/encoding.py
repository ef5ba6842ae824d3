"""Encoding: what a call of `encode` was told, and its texts on their way to vectors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from mlx_embed.engine import Engine, Head
from mlx_embed.pooling import mean_of_chunks
from mlx_embed.progress import Progress
from mlx_embed.texts import progress, windows
from mlx_embed.tokenizer import Tokenizer, Tokens
from mlx_embed.window import Window

Float32: TypeAlias = npt.NDArray[np.float32]
Int32: TypeAlias = npt.NDArray[np.int32]
Row = TypeVar("Row")


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


@dataclass(frozen=True)
class Encoding:
    """How texts are embedded.

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
        cuts: whether a text that is too long is cut, before it is tokenized where the tokenizer may do so.
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
    cuts: bool

    def begun(self, windows: Iterable[list[str]], advance: Progress) -> Iterator[Window]:
        """Each window of texts, once it is tokenized and its computation has begun.

        Raises:
            ValueError: a text that is too long, where those are refused; its index is named.
        """
        done = 0
        for window in windows:
            encoded = self.tokenizer.encode(window, self.prefix, whole=self.counted, cuts=self.cuts)
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
        placed: Float32 | None = None
        parts = [np.zeros((0, self.dim), dtype=np.float32)]
        counts, chunks = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int32)]
        done, whole = 0, True
        for window in begun:
            vectors = mean_of_chunks(window.rows(), window.weights, window.chunks, self.unit)
            if len(vectors) == total:
                return Encoded(vectors, window.counts, window.chunks, window.whole)
            if total is None:
                parts.append(vectors)
            else:
                if placed is None:
                    placed = np.empty((total, self.dim), dtype=np.float32)
                placed[done : done + len(vectors)] = vectors
            done += len(vectors)
            counts.append(window.counts)
            chunks.append(window.chunks)
            whole &= window.whole
        vectors = np.concatenate(parts) if placed is None else placed[:done]
        return Encoded(vectors, np.concatenate(counts), np.concatenate(chunks), whole)


def by_windows(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    prompt: str,
    show: bool | None,
    compute: Callable[[Tokens, Progress], Iterable[Row]],
    *,
    counted: bool = False,
) -> tuple[list[Row], Int32, bool]:
    """What `compute` makes of each window of texts, one behind the other, and how many tokens each text has.

    `show` is whether to show a progress bar, as of `encode`, which `compute` moves on. Unless they are to be `counted`,
    what is far behind the end of what the model takes is not read: then the last is False, and there may be more.
    """
    rows: list[Row] = []
    counts, whole = [np.zeros(0, dtype=np.int32)], True
    with progress(show, len(texts) if isinstance(texts, Sequence) else None) as advance:
        for window in windows(texts, len):
            tokens = tokenizer.tokens(tokenizer.encode(window, prompt, whole=counted), prompt)
            counts.append(tokens.counts)
            whole &= tokens.whole
            rows += compute(tokens, advance)
    return rows, np.concatenate(counts), whole


@dataclass(frozen=True)
class Call:
    """What a call of `encode` asked for.

    Attributes:
        encoding: of its texts.
        dim: the dimensions of a vector that are wanted.
        output_dtype, ranges: of the vectors, checked.
        show: whether to show a progress bar, as of `encode`.
    """

    encoding: Encoding
    dim: int
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
