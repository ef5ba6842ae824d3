"""Window: some texts of a call of `encode`, being computed while the next ones are tokenized."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mlx_embed.batching import Batch
from mlx_embed.engine import Engine, Head
from mlx_embed.progress import Progress
from mlx_embed.tokenizer import Tokens

Float32: TypeAlias = npt.NDArray[np.float32]
Int32: TypeAlias = npt.NDArray[np.int32]


class Window:
    """The texts of one window, being computed.

    Attributes:
        counts, chunks, weights, whole: as of `Tokens`; there once the first row is.
    """

    counts: Int32
    chunks: Int32
    weights: Float32
    whole: bool

    def __init__(
        self,
        engine: Engine,
        head: Head,
        tokens: Callable[[], Tokens],
        budget: int,
        max_texts: int | None,
        advance: Progress,
    ) -> None:
        self._advance = advance
        self._rows = engine.gather(self._batches(engine, tokens, budget, max_texts), head, self._computed)

    def _batches(
        self, engine: Engine, make_tokens: Callable[[], Tokens], budget: int, max_texts: int | None
    ) -> Iterator[Batch]:
        # Where the engine has a thread of its own, ids are taken there out of what `tokenizers` has made, and let go
        # when the last batch has begun, which is when this generator ends: both hold Python's lock, and all cores are
        # to tokenize the next window meanwhile.
        tokens = make_tokens()
        self.counts, self.chunks, self.weights = tokens.counts, tokens.chunks, tokens.weights
        self.whole = tokens.whole
        lengths = tokens.ids.lengths
        # Where each text has one row, what is missing of it was cut.
        single = len(self.weights) == len(self.counts)
        self._advance.note(len(tokens.ids.flat), int(np.count_nonzero(self.counts > lengths)) if single else 0)
        yield from engine.batches(tokens.ids, budget, max_texts)

    def _computed(self, rows: int) -> None:
        if len(self.weights) == len(self.counts):  # else a text has several rows
            self._advance(rows)

    def rows(self) -> Float32:
        """A row for each list of ids, once all are computed."""
        rows = self._rows.result()
        if len(self.weights) > len(self.counts):
            self._advance(len(self.counts))
        return rows

    def close(self) -> None:
        """Stop."""
        self._rows.close()
