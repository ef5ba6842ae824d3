"""Pool: a model in several processes, one a GPU; texts in, vectors in their order out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import is_folder, path_of, positive_number
from mlx_embed.embedding_model import EmbeddingModel, Task
from mlx_embed.jobs.devices import environments_of
from mlx_embed.jobs.processes import Processes
from mlx_embed.options import ENCODE, EncodeOptions, LoadOptions, complete, numpy_only
from mlx_embed.progress import Progress
from mlx_embed.texts import WINDOW, checked, progress

if TYPE_CHECKING:
    from mlx_embed.options import Unpack

Texts: TypeAlias = str | Iterable[str]
# Texts that a process gets at a time: a window of `encode`. The last ones are smaller, so that all end together.
PIECE = WINDOW
SMALLEST = 256
# Pieces that a process has at a time: one that is computed, one that is tokenized, and one on its way.
AHEAD = 3


class Pool:
    """A model in several processes. A context manager: at its end they are ended.

    Vectors are those of `EmbeddingModel.encode`, within its 1e-5. A process that dies is started again, and its texts
    are embedded by whoever is free. It may be used from any thread; calls are done one after the other.

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
        if isinstance(model, (str, Path)) and is_folder(model):
            model = path_of("model", model)  # this process may be elsewhere when one is started again
        environments = environments_of(workers, options.get("device"))
        self.workers = len(environments)
        self._processes = Processes(_Load(model, options), environments, ahead=AHEAD)
        # Answers of two calls would be taken for one another's.
        self._busy = Lock()
        self._thread: int | None = None

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
        return self._encoded("encode", texts, options, None)

    def encode_query(self, texts: Texts, **options: "Unpack[EncodeOptions]") -> npt.NDArray[Any]:
        """`EmbeddingModel.encode_query` of these texts; see `encode`."""
        return self._encoded("encode_query", texts, options, "query")

    def encode_document(self, texts: Texts, **options: "Unpack[EncodeOptions]") -> npt.NDArray[Any]:
        """`EmbeddingModel.encode_document` of these texts; see `encode`."""
        return self._encoded("encode_document", texts, options, "document")

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

    def _encoded(self, method: str, texts: Texts, options: EncodeOptions, task: Task | None) -> npt.NDArray[Any]:
        numpy_only(method, complete(method, options, ENCODE))
        single = isinstance(texts, str)
        texts = [texts] if isinstance(texts, str) else checked(texts, method)
        count = len(texts) if isinstance(texts, Sequence) else None
        pieces = self._pieces(iter(texts), count)
        with self._alone(), progress(options.get("show_progress_bar"), count) as advance:
            vectors = self._vectors(((piece, task, options) for piece in pieces), count, advance)
        return vectors[0] if single else vectors

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Have the processes for one call, behind those of other threads."""
        if self._thread == get_ident():
            raise ValueError("The texts that a pool embeds come of a call of the same pool; embed those first.")
        with self._busy:
            if not self.pids:
                raise ValueError("The pool is closed, by `close` or by the error of a call before: make a new one.")
            self._thread = get_ident()
            try:
                yield
            finally:
                self._thread = None

    def _pieces(self, texts: Iterator[str], count: int | None) -> Iterator[list[str]]:
        """Lists of texts, of which there are so many, if that is known; of no texts, one that is empty.

        No texts tell the width and dtype of the vectors.
        """
        size = self._piece if count is None else self._size(count)
        piece = list(islice(texts, size))
        yield piece
        while len(piece) == size:
            if count is not None:
                count -= size
                size = self._size(count)
            if piece := list(islice(texts, size)):
                yield piece

    def _size(self, left: int) -> int:
        """Texts of the next piece: of the last ones, a part of each process's share."""
        return min(self._piece, max(left // (2 * self.workers), SMALLEST))

    def _vectors(self, tasks: Iterator[Any], count: int | None, advance: Progress) -> npt.NDArray[Any]:
        """The vectors of all tasks; of so many texts, if that is known, each piece's go to their place as they come."""
        starts = [0]

        def given() -> Iterator[Any]:
            for task in tasks:
                starts.append(starts[-1] + len(task[0]))
                yield task

        vectors: npt.NDArray[Any] | None = None
        found: dict[int, npt.NDArray[Any]] = {}
        for number, rows in self._processes.results(given()):
            advance(len(rows))
            if count is None:
                found[number] = rows.copy()
                continue
            if vectors is None:
                vectors = np.empty((count, rows.shape[1]), rows.dtype)
            vectors[starts[number] : starts[number + 1]] = rows
        return np.concatenate([found[number] for number in range(len(found))]) if vectors is None else vectors


class _Load:
    """Loads a model where the tasks are to be done; a class, so that it can be pickled with what it needs."""

    def __init__(self, model: str | Path, options: LoadOptions) -> None:
        self._model, self._options = model, options

    def __call__(self) -> "_Encoder":
        return _Encoder(EmbeddingModel.from_pretrained(self._model, **self._options))


class _Encoder:
    """Begins to embed texts."""

    def __init__(self, model: EmbeddingModel) -> None:
        self._model = model

    def begin(self, task: "tuple[list[str], Task | None, EncodeOptions]") -> Callable[[], npt.NDArray[Any]]:
        texts, kind, options = task
        return self._model.begin(texts, kind, **options)
