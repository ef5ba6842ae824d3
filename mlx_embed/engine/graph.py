"""The engine of MLX's lazy graphs, with this package's GPU kernels or without."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from custom_kernels.choice.switch import use_kernels
from custom_kernels.transfer import to_device, to_host
from mlx_embed.batching import Batch, Shape, packed_batches, packed_shapes
from mlx_embed.engine.contract import Gathering, Head, HeadFunction, Parameters, Rows, gathered
from mlx_embed.engine.device import checked_budget, is_cpu
from mlx_embed.engine.worker import worker

# Enough to fill the device, few enough for padded attention's scores to fit.
CPU_BATCH_TOKENS = 4096
GPU_BATCH_TOKENS = 65536


class GraphEngine:
    """Runs an encoder as MLX graphs on the worker thread; see `Engine`.

    Attributes:
        encoder: the loaded encoder.
        kernels: whether this package's GPU kernels may run; without, MLX's own ops alone.
        compiled: whether graphs are compiled, for the few shapes that batches then have.
    """

    ahead = 1

    def __init__(
        self, encoder: nn.Module, device: mx.Device, *, kernels: bool, compiled: bool, pads: bool = False
    ) -> None:
        """Take a loaded encoder.

        `pads` says that what follows it lays texts out as a block, as wide as the longest of a batch.
        """
        self.device = device
        self.encoder = encoder
        self.kernels = kernels
        self.compiled = compiled
        # On CUDA attention is packed, unless its kernel turns out not to work.
        self._ragged = kernels and not pads and not is_cpu(device) and mx.cuda.is_available()
        parameters = dict(tree_flatten(encoder.parameters())).values()
        floats = (x.dtype for x in parameters if mx.issubdtype(x.dtype, mx.floating))
        self.dtype: mx.Dtype = next(floats, mx.float32)

    @property
    def name(self) -> str:
        """See `Engine`."""
        return "graph" if self.kernels else "reference"

    def budget(self, batch_tokens: int | None) -> int:
        """See `Engine`."""
        many = getattr(self.encoder, "batch_tokens", GPU_BATCH_TOKENS)
        return checked_budget(batch_tokens, CPU_BATCH_TOKENS if is_cpu(self.device) else many)

    def batches(
        self,
        ids: Sequence[Sequence[int]],
        batch_tokens: int,
        max_texts: int | None = None,
        token_types: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[Batch]:
        """See `Engine`."""
        return packed_batches(
            ids,
            batch_tokens,
            bucketed=self.compiled,
            ragged=self._ragged,
            max_texts=max_texts,
            token_types=token_types,
        )

    def shapes(self, batch_tokens: int, longest: int) -> set[Shape]:
        """Every shape that batches of texts up to `longest` tokens can have where graphs are compiled."""
        return packed_shapes(batch_tokens, longest, ragged=self._ragged)

    def head(self, function: HeadFunction, parameters: Parameters = ()) -> Head:
        """See `Engine`."""

        def forward(
            input_ids: mx.array, cu_seqlens: mx.array, max_seqlen: int, token_type_ids: mx.array | None
        ) -> mx.array:
            types = () if token_type_ids is None else (token_type_ids,)
            hidden = self.encoder(input_ids, cu_seqlens, max_seqlen, *types)
            rows: mx.array = function(hidden, cu_seqlens, max_seqlen, parameters)
            return rows

        return mx.compile(forward) if self.compiled else forward

    def rows(self, batch: Batch, head: Head) -> mx.array:
        """The rows of a batch as a lazy array, those of its fillers included; for use on the worker thread."""
        given = [batch.input_ids, batch.cu_seqlens]
        if batch.token_type_ids is not None:
            given.append(batch.token_type_ids)
        with mx.stream(self.device), use_kernels(self.kernels):
            input_ids, cu_seqlens, *types = to_device(*given)
            rows: mx.array = head(input_ids, cu_seqlens, batch.max_seqlen, types[0] if types else None)
            return rows

    def run(self, batches: Iterable[Batch], head: Head) -> "WorkerRun":
        """See `Engine`."""
        stop = threading.Event()
        return WorkerRun(self._computed(batches, head, stop), stop)

    def gather(self, batches: Iterable[Batch], head: Head, advance: Callable[[int], Any]) -> Gathering:
        """See `Engine`."""
        stop = threading.Event()
        future = worker.submit(lambda: gathered(self._computed(batches, head, stop), advance))
        return Gathering(future.result, stop.set)

    def begin(self, batches: Iterable[Batch], head: Head) -> Callable[[], Rows]:
        """See `Engine`; on the worker thread, in the order of the calls."""
        begun = worker.submit(lambda: [(batch, self._begin(batch, head)) for batch in batches])

        def rows() -> Rows:
            return gathered(((batch, wait()) for batch, wait in begun.result()), lambda _: None)

        return lambda: worker.submit(rows).result()

    def _computed(self, batches: Iterable[Batch], head: Head, stop: threading.Event) -> Iterator[tuple[Batch, Rows]]:
        """Each batch with its rows, until told to stop, on the worker thread: one is read while the next one runs."""
        running: tuple[Batch, Callable[[], Rows]] | None = None
        for batch in batches:
            if stop.is_set() or worker.ending:
                break
            wait = self._begin(batch, head)
            if running is not None:
                yield running[0], running[1]()
            running = (batch, wait)
        if running is not None:
            yield running[0], running[1]()
        worker.stop_if_ending()  # its reader must not take these rows for all

    def _begin(self, batch: Batch, head: Head) -> Callable[[], Rows]:
        """Start to compute a batch; what comes back waits for its rows."""
        with mx.stream(self.device), use_kernels(self.kernels):
            wait = to_host(self.rows(batch, head))
        return lambda: wait()[:: batch.stride][: len(batch.texts)]


class WorkerRun:
    """A run that the worker thread goes through, ahead of its reader."""

    def __init__(self, computed: Iterator[tuple[Batch, Rows]], stop: threading.Event) -> None:
        self._computed = computed
        self._stop = stop
        # A batch with its rows, the error that ended the run, or None behind the last.
        self._done: SimpleQueue[tuple[Batch, Rows] | BaseException | None] = SimpleQueue()
        self._ended = False
        worker.submit(self._work)

    def __iter__(self) -> "WorkerRun":
        return self

    def __next__(self) -> tuple[Batch, Rows]:
        found = None if self._ended else self._done.get()
        if isinstance(found, tuple):
            return found
        self._ended = True
        if found is None:
            raise StopIteration
        raise found

    def close(self) -> None:
        """Stop; batches that have not begun are not computed."""
        self._ended = True
        self._stop.set()

    def _work(self) -> None:
        try:
            for pair in self._computed:
                self._done.put(pair)
            self._done.put(None)
        except BaseException as error:
            self._done.put(error)
