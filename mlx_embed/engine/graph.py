"""The engine of MLX's lazy graphs, with this package's GPU kernels or without."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from itertools import chain
from queue import SimpleQueue
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from custom_kernels import mean_pool
from custom_kernels.choice.op import CLASSES, Load
from custom_kernels.choice.serving import serving
from custom_kernels.choice.switch import kernels_wanted, use_kernels
from custom_kernels.cuda.ahead import under_way
from custom_kernels.metal.linear import ROWS
from custom_kernels.ops.attention import ATTENTION, LENGTHS
from custom_kernels.transfer import find_way, to_device, to_host
from mlx_embed.architectures.ops.unseen import hiding
from mlx_embed.batching import Batch, Shape, packed_batches, packed_shapes
from mlx_embed.engine.contract import Gathered, Gathering, Head, HeadFunction, Parameters, Result, Rows, gathered
from mlx_embed.engine.device import accelerator, checked_budget, is_cpu
from mlx_embed.engine.forward import forward
from mlx_embed.engine.rehearsal import SHAPES, rehearse
from mlx_embed.engine.worker import worker
from mlx_embed.errors import warn

# Enough to fill the device, few enough for padded attention's scores to fit. Of 264 tiles of 256 rows each product
# takes whole rounds on a GPU of 132 multiprocessors.
CPU_BATCH_TOKENS = 4096
GPU_BATCH_TOKENS = 264 * 256
# What is computed once when a model is loaded on a Mac: a text of each shape up to so many tokens, and texts of these
# lengths, so many that a kernel gets where they begin as it does of larger batches: see custom_kernels/choice/op.py.
ALONE, TOGETHER, TEXTS = 128, (16, 32, 64), 8
# Seconds that a first batch waits for kernels: they are there by then where an earlier process has compiled them.
PATIENCE = 0.1


class GraphEngine:
    """Runs an encoder as MLX graphs on the worker thread; see `Engine`.

    Attributes:
        encoder: the loaded encoder.
        kernels: whether this package's GPU kernels may run; without, MLX's own ops alone.
        compiled: whether graphs are compiled, for the few shapes that batches then have.
    """

    ahead = 1
    # Shapes whose kernels are compiled ahead on CUDA.
    rehearsed: tuple[Shape, ...] = SHAPES

    def __init__(
        self,
        encoder: nn.Module,
        device: mx.Device,
        *,
        kernels: bool,
        compiled: bool,
        pads: bool = False,
        known: HeadFunction | None = None,
    ) -> None:
        """Take a loaded encoder.

        `pads` says that what follows it lays texts out as a block, as wide as the longest of a batch. `known` is a head
        whose kernels have begun to be compiled already.
        """
        self.device = device
        self.encoder = encoder
        self.kernels = kernels
        self.compiled = compiled
        self._known = known
        # On a GPU attention is packed, unless `prepare` finds out otherwise.
        self._ragged = kernels and not pads and not is_cpu(device) and accelerator() is not None
        # Of the longest text, once prepared and until a first head has been tried.
        self._untried = 0
        # For the batches that have begun, in their order: what waits for one, and is done behind a window's last.
        self._steps: deque[Callable[[], None]] = deque()
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
        unseen: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[Batch]:
        """See `Engine`."""
        return packed_batches(
            ids,
            batch_tokens,
            bucketed=self.compiled,
            ragged=self._ragged,
            max_texts=max_texts,
            token_types=token_types,
            unseen=unseen,
        )

    def shapes(self, batch_tokens: int, longest: int) -> set[Shape]:
        """Every shape that batches of texts up to `longest` tokens can have where graphs are compiled."""
        return packed_shapes(batch_tokens, longest, ragged=self._ragged)

    def head(self, function: HeadFunction, parameters: Parameters = ()) -> Head:
        """See `Engine`."""

        def run(
            input_ids: mx.array,
            cu_seqlens: mx.array,
            max_seqlen: int,
            token_type_ids: mx.array | None,
            unseen: mx.array | None = None,
        ) -> mx.array:
            types = () if token_type_ids is None else (token_type_ids,)
            with hiding(unseen):
                rows: mx.array = forward(function, parameters, self.encoder, input_ids, cu_seqlens, max_seqlen, *types)
            return rows

        if self._ragged and self.rehearsed and accelerator() == "cuda":
            worker.submit(partial(self._rehearse, None if function == self._known else run))
        made = _Compiled(run) if self.compiled else run
        if self._untried:
            longest, self._untried = self._untried, 0
            worker.run(partial(self._try, run, made, longest), self.device)
        return made

    def _try(self, built: Head, head: Head, longest: int) -> None:
        """Let the ops of a head find out what those of `prepare` have, and compute batches of few tokens.

        Apple's compiler works when a kernel is first launched in a process. A model's first head is made when it is
        loaded, and so no request waits for that.
        """
        alone = ([[0] * n] for n in range(1, min(longest, ALONE) + 1))
        together = ([[0] * min(longest, n)] * TEXTS for n in TOGETHER)
        seen = set()
        with suppress(Exception):  # which a request would raise, and say what it is about
            for batch in self._classes(longest):
                with mx.stream(self.device), use_kernels(self.kernels):
                    built(mx.array(batch.input_ids), mx.array(batch.cu_seqlens), batch.max_seqlen, None)
            for ids in chain(alone, together):
                for batch in self.batches(ids, self.budget(None)):
                    if batch.shape not in seen:
                        seen.add(batch.shape)
                        self._begin(batch, head)()

    def _rehearse(self, run: Callable[..., mx.array] | None) -> None:
        """Begin to compile the kernels that this takes, and meanwhile do what else takes a process some time once."""
        try:
            if run is not None:
                whole = partial(_of_one_type, run)
                rehearse(lambda: whole, self.device, self.rehearsed)
        finally:
            with mx.stream(self.device), use_kernels(self.kernels):
                find_way()
                if self.dtype != mx.float32:
                    x, bias = (mx.zeros(shape, dtype=self.dtype) for shape in ((64, 64), (64,)))
                    mx.eval(mx.addmm(bias, x, x))  # MLX makes cuBLAS ready, 0.1 s

    def prepare(self, longest: int) -> None:
        """Let every op find out how it is best computed, for texts up to `longest` tokens and batches of each class.

        For use on the worker thread, when a model is loaded: its graphs are built, and not run. On Metal the ops then
        compare and time what they have, some seconds for sizes that this machine has not seen; elsewhere nothing comes
        of it. Texts of any lengths share a batch only where a kernel was found to be best for them, which pads nothing.
        The first head that is made afterwards is tried.
        """
        self._untried = longest
        for batch in self._classes(longest):
            with mx.stream(self.device), use_kernels(self.kernels):
                cu_seqlens = mx.array(batch.cu_seqlens)
                hidden = self.encoder(mx.array(batch.input_ids), cu_seqlens, batch.max_seqlen)
                mean_pool(hidden, cu_seqlens)
        mixed = [
            by_kernel
            for of, load, by_kernel in ATTENTION.chosen()
            if of.dtype == self.dtype and load.many and not load.equal
        ]
        self._ragged = self._ragged and all(mixed)

    def _classes(self, longest: int) -> Iterator[Batch]:
        """Batches of each class that ops tell apart, of texts up to `longest` tokens."""
        for tokens in sorted({*ROWS, *CLASSES}):
            most = tokens if tokens in ROWS else Load.of(tokens).most
            for length in {min(length, longest, most) for length in LENGTHS}:
                full = [length] * max(tokens // length, 1)
                for lengths in (full, [*full[1:], max(length - 3, 1), 2]):
                    yield from self.batches([[0] * n for n in lengths], max(2 * tokens, length))

    def rows(self, batch: Batch, head: Head) -> mx.array:
        """The rows of a batch as a lazy array, those of its fillers included; for use on the worker thread."""
        beside = [batch.token_type_ids, batch.unseen]
        given = [array for array in (batch.input_ids, batch.cu_seqlens, *beside) if array is not None]
        with mx.stream(self.device), use_kernels(self.kernels), serving():
            input_ids, cu_seqlens, *rest = to_device(*given)
            types, unseen = (None if array is None else rest.pop(0) for array in beside)
            rows: mx.array = head(
                input_ids, cu_seqlens, batch.max_seqlen, types, *(() if unseen is None else (unseen,))
            )
            return rows

    def run(self, batches: Iterable[Batch], head: Head, *, of_tokens: bool = False) -> "WorkerRun":
        """See `Engine`."""
        stop = threading.Event()
        return WorkerRun(self._computed(batches, head, stop, of_tokens), stop)

    def gather(self, batches: Iterable[Batch], head: Head, advance: Callable[[int], Any]) -> Gathering:
        """See `Engine`; a window's last batch is read when the first of the next one runs, if that is there by then."""
        stop = threading.Event()
        window = _Window(advance)

        def work() -> None:
            try:
                for batch in batches:
                    if stop.is_set() or worker.ending:
                        break
                    wait = self._begin(batch, head)
                    self._read()
                    self._steps.append(partial(window.read, batch, wait))
            except BaseException as error:
                window.fail(error)
            worker.stop_if_ending()  # its reader must not take these rows for all
            self._steps.append(window.finish)
            worker.later(self._read)  # behind the next window, which reads it sooner

        worker.submit(work)
        if worker.is_here:
            self._read()
        return Gathering(window.rows.result, stop.set)

    def near(self, work: Callable[[], Result]) -> Result:
        """See `Engine`."""
        context = copy_context()  # a progress bar, or whether kernels are wanted
        return worker.submit(lambda: context.run(work)).result()

    def begin(self, batches: Iterable[Batch], head: Head) -> Callable[[], Rows]:
        """See `Engine`; on the worker thread, in the order of the calls."""
        begun = worker.submit(lambda: [(batch, self._begin(batch, head)) for batch in batches])

        def rows() -> Rows:
            return gathered((batch, wait()) for batch, wait in begun.result())

        return lambda: worker.submit(rows).result()

    def _computed(
        self, batches: Iterable[Batch], head: Head, stop: threading.Event, of_tokens: bool = False
    ) -> Iterator[tuple[Batch, Rows]]:
        """Each batch with its rows, until told to stop, on the worker thread: one is read while the next one runs."""
        running: tuple[Batch, Callable[[], Rows]] | None = None
        for batch in batches:
            if stop.is_set() or worker.ending:
                break
            wait = self._begin(batch, head, of_tokens)
            if running is not None:
                yield running[0], running[1]()
            running = (batch, wait)
        if running is not None:
            yield running[0], running[1]()
        worker.stop_if_ending()  # its reader must not take these rows for all

    def _read(self) -> None:
        """Wait for all that has begun to be gathered."""
        while self._steps:
            self._steps.popleft()()

    def _begin(self, batch: Batch, head: Head, of_tokens: bool = False) -> Callable[[], Rows]:
        """Start to compute a batch; what comes back waits for its rows."""

        def begin() -> Callable[[], Rows]:
            with mx.stream(self.device), use_kernels(self.kernels):
                return to_host(self.rows(batch, head))

        wait = self._or_else(begin) if self.kernels and accelerator() == "metal" else begin()
        if of_tokens:
            return lambda: wait()[batch.tokens]
        return lambda: wait()[: len(batch.texts)]

    def _or_else(self, begin: Callable[[], Callable[[], Rows]]) -> Callable[[], Rows]:
        """Begin, and where that fails compute the batch by MLX's own ops, and then all that follow.

        A Mac compiles a kernel when it is first launched: one that has passed its check at load may still be refused at
        another shape, or by a compiler that has changed meanwhile.
        """

        def instead(error: Exception) -> Rows:
            kernels, self.kernels = self.kernels, False
            try:
                rows = begin()()
            except Exception:  # so it is no kernel's fault
                self.kernels = kernels
                raise error from None
            self._ragged = False
            if kernels:
                why = str(error).strip()[:300]
                warn(
                    f"A Metal kernel does not run: {why}. This model is computed by MLX's own ops instead.",
                    RuntimeWarning,
                )
            return rows

        try:
            wait = begin()
        except Exception as error:
            rows = instead(error)
            return lambda: rows

        def waited() -> Rows:
            try:
                return wait()
            except Exception as error:
                return instead(error)

        return waited


def _of_one_type(run: Callable[..., mx.array], input_ids: mx.array, cu_seqlens: mx.array, longest: int) -> mx.array:
    return run(input_ids, cu_seqlens, longest, None)


class _Compiled:
    """A forward pass as compiled graphs, which are made once more when all kernels that they want are compiled.

    Until then some ops are computed by other kernels: see `Op.meanwhile`. They are made once more too where kernels are
    no longer wanted.
    """

    def __init__(self, forward: Callable[..., mx.array]) -> None:
        self._forward = forward
        self._graphs = self._compiled()
        # Whether graphs were made while kernels were being compiled; None before there are any.
        self._early: bool | None = None
        self._kernels: bool | None = None

    def __call__(self, *given: Any) -> mx.array:
        if self._early is not False:
            early = under_way(PATIENCE if self._early is None else 0.0)
            if self._early and not early:
                self._graphs = self._compiled()
            self._early = early
        if self._kernels is not (wanted := kernels_wanted()):
            self._kernels, self._graphs = wanted, self._compiled()
        return self._graphs(*given)

    def _compiled(self) -> Callable[..., mx.array]:
        """A function that has no graphs yet, which MLX keeps by the function that they are of."""
        return mx.compile(partial(self._forward))


class _Window:
    """The rows of one `gather`, of which the worker thread calls the methods.

    Attributes:
        rows: of all texts, once `finish` has been called, or the error of `fail`.
    """

    def __init__(self, advance: Callable[[int], Any]) -> None:
        self.rows: Future[Rows] = Future()
        self._advance = advance
        self._whole = Gathered()

    def read(self, batch: Batch, wait: Callable[[], Rows]) -> None:
        try:
            self._whole.add(batch, wait())
            self._advance(len(batch.texts))
        except BaseException as error:
            self.fail(error)

    def finish(self) -> None:
        try:
            if not self.rows.done():
                self.rows.set_result(self._whole.rows)
        except BaseException as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        if not self.rows.done():
            self.rows.set_exception(error)


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
