"""Pool: a model in several processes, one a GPU; texts in, vectors in their order out."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import positive_number
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.jobs.devices import environments_of
from mlx_embed.jobs.processes import Processes
from mlx_embed.options import ENCODE, EncodeOptions, LoadOptions, complete, numpy_only
from mlx_embed.texts import checked

if TYPE_CHECKING:
    from mlx_embed.options import Unpack

Texts: TypeAlias = str | Iterable[str]
# Texts that a process gets at a time: enough for full batches of like lengths, few enough that all end together.
PIECE = 1024


class Pool:
    """A model in several processes. A context manager: at its end they are ended.

    Vectors are those of `EmbeddingModel.encode`, within its 1e-5. A process that dies is started again, and its texts
    are embedded by whoever is free.

    Attributes:
        workers: how many processes.
    """

    def __init__(
        self, model: str | Path, *, workers: int | None = None, piece: int = PIECE, **options: "Unpack[LoadOptions]"
    ) -> None:
        """Start the processes; each loads the model.

        Args:
            model: as for `EmbeddingModel.from_pretrained`, whose `options` these are.
            workers: how many processes. On GPUs, None is one for each that CUDA_VISIBLE_DEVICES lets this process see,
                and of more than there are several share one; without GPUs it is 1. They share the cores evenly.
            piece: texts that a process gets at a time.

        Raises:
            ValueError: no positive number of workers or texts.
        """
        self._piece = positive_number("piece", piece, "texts")
        environments = environments_of(workers, options.get("device"))
        self.workers = len(environments)
        self._processes = Processes(_Load(str(model), options), environments, ahead=2)

    def encode(self, texts: Texts, **options: "Unpack[EncodeOptions]") -> npt.NDArray[Any]:
        """`EmbeddingModel.encode` of these texts.

        Args:
            texts: one string, or any iterable of strings; a generator is read as processes are free.
            **options: those of `EmbeddingModel.encode`.

        Returns:
            numpy [N, D], or [D] for a single string.

        Raises:
            Exception: what `encode` raises, with the place of a text within its piece; the pool is then closed.
            WorkerError: a process died twice over the same texts.
        """
        return self._encoded("encode", texts, options)

    def encode_query(self, texts: Texts, **options: "Unpack[EncodeOptions]") -> npt.NDArray[Any]:
        """`EmbeddingModel.encode_query` of these texts; see `encode`."""
        return self._encoded("encode_query", texts, options)

    def encode_document(self, texts: Texts, **options: "Unpack[EncodeOptions]") -> npt.NDArray[Any]:
        """`EmbeddingModel.encode_document` of these texts; see `encode`."""
        return self._encoded("encode_document", texts, options)

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes."""
        return self._processes.pids

    def close(self) -> None:
        """End the processes."""
        self._processes.close()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _encoded(self, method: str, texts: Texts, options: EncodeOptions) -> npt.NDArray[Any]:
        if not self.pids:
            raise ValueError("The pool is closed.")
        numpy_only(method, complete(method, options, ENCODE))
        single = isinstance(texts, str)
        texts = [texts] if isinstance(texts, str) else checked(texts, method)
        # No texts tell the width and dtype of the vectors.
        pieces = ((method, piece, options) for piece in _pieces(texts, self._piece))
        if isinstance(texts, Sequence):
            vectors = self._of_known(len(texts), pieces)
        else:
            found = {number: rows.copy() for number, rows in self._processes.results(pieces)}
            vectors = np.concatenate([found[number] for number in range(len(found))])
        return vectors[0] if single else vectors

    def _of_known(self, count: int, pieces: Iterator[Any]) -> npt.NDArray[Any]:
        """The vectors of so many texts, each piece copied to its place as it comes."""
        vectors: npt.NDArray[Any] | None = None
        for number, rows in self._processes.results(pieces):
            if vectors is None:
                vectors = np.empty((count, rows.shape[1]), rows.dtype)
            start = number * self._piece
            vectors[start : start + len(rows)] = rows
        assert vectors is not None
        return vectors


class _Load:
    """Loads a model where the tasks are to be done; a class, so that it can be pickled with what it needs."""

    def __init__(self, model: str, options: LoadOptions) -> None:
        self._model, self._options = model, options

    def __call__(self) -> Any:
        model = EmbeddingModel.from_pretrained(self._model, **self._options)

        def encode(task: tuple[str, list[str], EncodeOptions]) -> npt.NDArray[Any]:
            method, texts, options = task
            found: npt.NDArray[Any] = getattr(model, method)(texts, **options)
            return found

        return encode


def _pieces(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of so many texts; of no texts, one that is empty."""
    iterator = iter(texts)
    piece = list(islice(iterator, size))
    yield piece
    while len(piece) == size and (piece := list(islice(iterator, size))):
        yield piece
