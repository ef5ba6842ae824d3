"""What every engine does, and what a head is."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_embed.architectures.ops import Array
from mlx_embed.batching import Batch

# What a head makes of a batch: a row a text, float32 [n, D].
Rows: TypeAlias = npt.NDArray[np.float32]
Parameters: TypeAlias = Sequence[Mapping[str, Array]]
# A head made ready by an engine, and of use to it alone.
Head: TypeAlias = Any
Result = TypeVar("Result")


class HeadFunction(Protocol):
    """What a model does with the encoder's hidden states, written on `architectures.ops`: a frozen, hashable object.

    One that may read a single token of each text has `of_one_token`: where these are, a function of cu_seqlens and T,
    and the head that takes hidden states [n, H] of them alone; or None, where it reads more.
    """

    def __call__(self, hidden: Array, cu_seqlens: Array, max_seqlen: int, parameters: Parameters) -> Array:
        """Hidden states [T, H] of a packed batch, and this head's own weights, to rows.

        A row a sequence: [n, D]. Or a row a token: [T, D], to be run as such.
        """
        ...


class Engine(Protocol):
    """How a model is computed."""

    @property
    def name(self) -> str:
        """Which it is: "native", "graph" or "reference" (graphs of MLX's own ops alone)."""
        ...

    @property
    def device(self) -> mx.Device:
        """Where it computes."""
        ...

    @property
    def dtype(self) -> mx.Dtype:
        """What the encoder computes in."""
        ...

    @property
    def ahead(self) -> int:
        """How many windows of texts to begin before the first is read: 0 where they are computed when read."""
        ...

    def budget(self, batch_tokens: int | None) -> int:
        """The tokens of a batch: those asked for, or what suits the device. ValueError below 1."""
        ...

    def batches(
        self,
        ids: Sequence[Sequence[int]],
        batch_tokens: int,
        max_texts: int | None = None,
        token_types: Sequence[Sequence[int]] | None = None,
        unseen: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[Batch]:
        """Token ids, and their types where texts are pairs, as batches of at most so many tokens and texts.

        `unseen`, as long as the ids, has a 1 for each token that none is to attend to.
        `Ids` are used as they lie; rows of another kind are laid end to end first.
        """
        ...

    def head(self, function: HeadFunction, parameters: Parameters = ()) -> Head:
        """A head ready to run: its function compiled, or not; its weights as this engine has them."""
        ...

    def run(self, batches: Iterable[Batch], head: Head, *, of_tokens: bool = False) -> "Run":
        """Compute batches: an iterator of each batch and its rows, in the order of `batches`.

        With `of_tokens` the head gives a row a token, and so does this, in the order of the batch's texts.
        An engine with a thread of its own begins at once, draws `batches` there, and runs ahead of the reader without
        bound: give it a window of texts, not a whole corpus. Closing the iterator stops it after the batch that runs.
        """
        ...

    def gather(self, batches: Iterable[Batch], head: Head, advance: Callable[[int], Any]) -> "Gathering":
        """`run`, and its rows put together in the order of the texts: for a window of which all rows are wanted.

        An engine with a thread of its own does all of it there, so that the caller's has nothing to do but to tokenize
        the next window. `advance` is told how many texts each batch had, on that thread.
        """
        ...

    def near(self, work: Callable[[], Result]) -> Result:
        """Run `work`, which may use this engine, on the thread on which it computes, and wait for what comes back.

        A call that is over in a millisecond loses some of it where it goes from thread to thread in its midst.
        """
        ...

    def begin(self, batches: Iterable[Batch], head: Head) -> Callable[[], Rows]:
        """Start to compute batches; what comes back waits for the rows of all texts, [n, D].

        With a device that works by itself, `ahead` more may be begun before the rows of the first are waited for: it
        computes them while those rows are read back.
        """
        ...


class Run(Protocol):
    """What `Engine.run` gives."""

    def __iter__(self) -> Iterator[tuple[Batch, Rows]]: ...

    def __next__(self) -> tuple[Batch, Rows]: ...

    def close(self) -> None:
        """Stop; batches that have not begun are not computed."""
        ...


@dataclass(frozen=True)
class Gathering:
    """What `Engine.gather` gives.

    Attributes:
        result: waits for the rows of all texts, [n, D]. RuntimeError where it was closed before, or had no batches.
        close: stops; batches that have not begun are not computed.
    """

    result: Callable[[], Rows]
    close: Callable[[], None]


class Gathered:
    """Rows in the order of their texts, put there as each batch comes: a device computes the next one meanwhile."""

    def __init__(self) -> None:
        self._rows: Rows | None = None
        self._left = 0

    def add(self, batch: Batch, rows: Rows) -> None:
        """Take the rows of one of the batches that have the texts."""
        if self._rows is None:
            self._left = len(batch.texts) if batch.of is None else batch.of
            self._rows = rows if self._left == 1 else np.empty((self._left, rows.shape[1]), dtype=np.float32)
        if self._rows is not rows:
            self._rows[batch.texts] = rows
        self._left -= len(batch.texts)

    @property
    def rows(self) -> Rows:
        """[n, D].

        Raises:
            RuntimeError: not all are there.
        """
        if self._rows is None or self._left:
            raise RuntimeError("There are not the rows of all texts: this was closed before, or had no batches.")
        return self._rows


def gathered(parts: Iterable[tuple[Batch, Rows]]) -> Rows:
    """The rows of batches, at least one, in the order of the texts."""
    whole = Gathered()
    for batch, rows in parts:
        whole.add(batch, rows)
    return whole.rows
