"""A model's queue: texts of all requests, tokenized on one thread, and computed on another in batches of tokens.

What waits while a batch runs becomes the next batch, so that batches grow with the load, and nothing waits for a timer
where the device is idle. Whose texts they are is of no matter: see `fair` for whose turn it is.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from mlx_embed.serve.fair import FairQueue, Flow

logger = logging.getLogger("mlx_embed")

# Characters that are tokenized at a time: some milliseconds, which is what a small request waits behind a large one.
READ_CHARACTERS = 2**16
# How much the last batch counts in the mean speed.
SPEED_WEIGHT = 0.2

Text = TypeVar("Text")


class QueueFullError(Exception):
    """Too many tokens are waiting already."""


class QueueClosedError(Exception):
    """The server is stopping."""


class TextError(Exception):
    """A text that cannot be computed.

    Attributes:
        index: which of its request's.
    """

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


class TooManyTokensError(Exception):
    """More tokens than a request may have."""


class TextTooLongError(TextError):
    """A text of more tokens than the model takes, of a request that wants none cut."""


@dataclass(frozen=True)
class Tokens:
    """What a tokenizer made of one text.

    Attributes:
        ids: token ids, special tokens included, no more than the model takes.
        types: which of a pair each token is of; None where the model is not told.
        count: the text's tokens before it was cut.
        exact: whether it has no more than these; of one that is far too long only the beginning is read.
    """

    ids: Sequence[int]
    types: Sequence[int] | None
    count: int
    exact: bool = True


@dataclass(frozen=True)
class BatchReport:
    """One batch: its texts, tokens, and seconds."""

    texts: int
    tokens: int
    seconds: float


class Job(Generic[Text]):
    """What one request asks of a model. Cancelling `future` takes it out of the queue.

    Attributes:
        texts: to be computed; each counts as many characters as its `len`.
        key: how they are computed; only jobs of one key share a batch.
        limit: a text of more tokens fails the job; None cuts it.
        most: more tokens of all texts together, once they are cut, fail the job.
        future: done when all texts are; its result is the job itself.
        rows: what was computed of each text.
        counts: each text's tokens, before it was cut.
        computed: tokens computed.
        tokenizing, queued, inferring: seconds, of the job as a whole.
    """

    def __init__(self, texts: Sequence[Text], *, key: Hashable = None, limit: int | None = None) -> None:
        self.texts = texts
        self.key = key
        self.limit = limit
        self.most: int | None = None
        self.future: Future[Job[Text]] = Future()
        self.rows: list[Any] = [None] * len(texts)
        self.counts = [0] * len(texts)
        self.computed = 0
        self.tokenizing = self.queued = self.inferring = 0.0
        self.begun = time.monotonic()
        self.reserved = 0
        self.left = len(texts)
        self.unread: Flow[tuple[Job[Text], int]] = Flow()
        self.unrun: Flow[tuple[Job[Text], int, Tokens]] = Flow(key)

    def release(self) -> None:
        """Let go of texts and rows: a job and its future refer to each other, and go only when Python looks for that.

        One that was not done whole may still be in the hands of a thread.
        """
        if not self.left:
            self.texts, self.rows = (), []


class ModelQueue(Generic[Text]):
    """The texts that wait for one model, and the two threads that work them off."""

    def __init__(
        self,
        name: str,
        tokenize: Callable[[list[Text]], list[Tokens]],
        begin: Callable[[Hashable, list[Tokens]], Callable[[], Any]],
        *,
        ahead: int = 0,
        batch_tokens: int,
        longest: int,
        waiting_tokens: int,
    ) -> None:
        """Start the threads.

        Args:
            name: of the model, for its threads.
            tokenize: token ids of texts of any jobs, called on one thread alone.
            begin: starts to compute a row of numbers a text, from the key of their jobs and their tokens; what comes
                back waits for the rows. Both are called on another thread.
            ahead: how many full batches are begun before the rows of the one in front are waited for.
            batch_tokens: tokens that are computed at a time.
            longest: tokens at which the model cuts a text.
            waiting_tokens: at most so many wait; a job of more than one batch may take half of it, unless it is alone.
        """
        self._tokenize, self._begin, self._ahead = tokenize, begin, ahead
        self.batch_tokens, self.longest, self.limit = batch_tokens, longest, waiting_tokens
        self.waiting = 0  # tokens, at most: before a text is tokenized, its characters or the longest text's tokens
        self.jobs = 0
        self.speed = 0.0  # tokens a second, of the last batches
        self.watch: Callable[[BatchReport], None] | None = None
        self._unread: FairQueue[tuple[Job[Text], int]] = FairQueue()
        self._unrun: FairQueue[tuple[Job[Text], int, Tokens]] = FairQueue()
        self._lock = threading.Lock()
        self._to_read, self._to_run = threading.Condition(self._lock), threading.Condition(self._lock)
        self._closed = False
        self._running: set[Job[Text]] = set()
        self._threads = [
            threading.Thread(target=work, name=f"{stage} {name}", daemon=True)
            for stage, work in (("tokenize", self._read), ("compute", self._run))
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job[Text]) -> None:
        """Let a job wait its turn; its future is done when it is.

        Raises:
            QueueFullError: too many tokens wait.
            QueueClosedError: the server is stopping.
        """
        sizes = [len(text) + 2 for text in job.texts]  # type: ignore[arg-type]
        reserved = sum(min(size, self.longest) for size in sizes)
        with self._lock:
            if self._closed:
                raise QueueClosedError("The server is stopping.")
            limit = self.limit if reserved <= self.batch_tokens else self.limit // 2
            if self.waiting and self.waiting + reserved > limit:
                raise QueueFullError(f"{self.waiting} tokens are waiting already.")
            job.reserved = reserved
            self.waiting += reserved
            self.jobs += 1
            self._running.add(job)
            self._unread.add(job.unread, (((job, index), size) for index, size in enumerate(sizes)))
            self._to_read.notify()
        job.future.add_done_callback(lambda _: self._settle(job))

    def seconds_to_wait(self) -> float:
        """How long what waits now will take, by the speed of the last batches; 1 before the first."""
        return self.waiting / self.speed if self.speed else 1.0

    def close(self) -> None:
        """Compute no more: jobs that are not done fail with `QueueClosedError`."""
        with self._lock:
            self._closed = True
            left = list(self._running)
            self._to_read.notify_all()
            self._to_run.notify_all()
        for job in left:
            _fail(job, QueueClosedError("The server is stopping."))
        for thread in self._threads:
            thread.join()

    def _settle(self, job: Job[Text]) -> None:
        """A job is done, failed or cancelled: nothing of it waits any longer."""
        with self._lock:
            self._unread.drop(job.unread)
            self._unrun.drop(job.unrun)
            self.waiting -= job.reserved
            job.reserved = 0
            self.jobs -= 1
            self._running.discard(job)

    def _read(self) -> None:
        while True:
            with self._lock:
                while not self._closed and not self._unread:
                    self._to_read.wait()
                if self._closed:
                    return
                taken = self._unread.take(READ_CHARACTERS)
            start = time.monotonic()
            live = _live(taken)
            read = list(self._each(live, partial(self._ids, live), self._ids))
            seconds = time.monotonic() - start
            for job in {job for (job, _), _ in read}:
                job.tokenizing += seconds
            with self._lock:
                for (job, index), tokens in read:
                    self._tokenized(job, index, tokens)
                self._to_run.notify()
            for (job, index), tokens in read:
                if job.limit is not None and tokens.count > job.limit:
                    found = f"{tokens.count}{'' if tokens.exact else ' or more'}"
                    message = f"has {found} tokens, and the model takes {job.limit}"
                    _fail(job, TextTooLongError(index, message))
            for job in {job for (job, _), _ in read}:
                if job.most is not None and job.computed > job.most:
                    _fail(job, TooManyTokensError(f"more than {job.most} tokens"))

    def _tokenized(self, job: Job[Text], index: int, tokens: Tokens) -> None:
        """A text's ids are known, and so how many tokens of it wait."""
        if job.unrun.gone:
            return
        surplus = min(len(job.texts[index]) + 2, self.longest) - len(tokens.ids)  # type: ignore[arg-type]
        job.reserved -= surplus
        self.waiting -= surplus
        job.counts[index] = tokens.count
        job.computed += len(tokens.ids)
        self._unrun.add(job.unrun, [((job, index, tokens), max(len(tokens.ids), 1))])

    def _run(self) -> None:
        begun: deque[_Begun] = deque()
        while True:
            with self._lock:
                while not self._closed and not self._unrun and not begun:
                    self._to_run.wait()
                if self._closed:
                    return
                # A batch that is not full grows while the one in front runs.
                full = self._unrun.cost >= self.batch_tokens
                taken = self._unrun.take(self.batch_tokens) if not begun or (full and len(begun) <= self._ahead) else []
                for job, _, tokens in taken:
                    job.reserved -= len(tokens.ids)
                    self.waiting -= len(tokens.ids)
            if live := _live(taken):  # else what waited was cancelled meanwhile
                begun.append(self._started(live))
            elif begun:
                self._finish(begun.popleft())

    def _started(self, live: list[tuple[Job[Text], int, Tokens]]) -> "_Begun":
        start = time.monotonic()
        try:
            return _Begun(live, start, self._begin(live[0][0].key, [tokens for _, _, tokens in live]))
        except Exception as error:
            return _Begun(live, start, partial(_raise, error))

    def _finish(self, batch: "_Begun") -> None:
        """Wait for a batch's rows, and give them to their jobs."""
        for (job, index, _), row in self._each(batch.texts, lambda: _checked(batch.rows()), self._rows):
            if row is None:
                _fail(job, TextError(index, "gives a vector that is not finite"))
                continue
            job.rows[index] = row
            job.left -= 1
        self._report(batch.texts, time.monotonic() - batch.start)

    def _report(self, taken: list[tuple[Job[Text], int, Tokens]], seconds: float) -> None:
        """Answer the jobs that are done, and say how the batch went."""
        tokens = sum(len(tokens.ids) for _, _, tokens in taken)
        speed = tokens / max(seconds, 1e-9)
        self.speed += (speed - self.speed) * (SPEED_WEIGHT if self.speed else 1.0)
        now = time.monotonic()
        for job in dict.fromkeys(job for job, _, _ in taken):
            job.inferring += seconds
            if not job.left:
                job.queued = max(now - job.begun - job.tokenizing - job.inferring, 0.0)
                # The caller may have cancelled it, or another of its texts failed it.
                with suppress(InvalidStateError):
                    job.future.set_result(job)
        if self.watch is not None:
            self.watch(BatchReport(len(taken), tokens, seconds))

    def _ids(self, texts: list[tuple[Job[Text], int]]) -> list[Tokens]:
        return self._tokenize([job.texts[index] for job, index in texts])

    def _rows(self, texts: list[tuple[Job[Text], int, Tokens]]) -> list[Any]:
        """A row a text, None for one that is not finite."""
        return _checked(self._begin(texts[0][0].key, [tokens for _, _, tokens in texts])())

    @staticmethod
    def _each(
        live: list[Any], whole: Callable[[], list[Any]], alone: Callable[[list[Any]], list[Any]]
    ) -> Iterator[tuple[Any, Any]]:
        """What `whole` gives of what was taken; where it fails, `alone` of each job's by itself, and that job fails."""
        jobs = dict.fromkeys(entry[0] for entry in live)
        try:
            yield from zip(live, whole(), strict=True)
            return
        except Exception as error:
            if len(jobs) == 1:
                logger.error("A request could not be computed: %s", error, exc_info=True)
                _fail(live[0][0], error)
                return
        for job in jobs:
            part = _live(entry for entry in live if entry[0] is job)
            yield from ModelQueue._each(part, partial(alone, part), alone)


@dataclass(frozen=True)
class _Begun:
    """A batch that is being computed; `rows` waits for its rows, or raises."""

    texts: list[Any]
    start: float
    rows: Callable[[], Any]


def _live(taken: Iterable[Any]) -> list[Any]:
    """What was taken without that of jobs that are done: cancelled, or failed by another of their texts."""
    return [entry for entry in taken if not entry[0].future.done()]


def _raise(error: Exception) -> Any:
    raise error


def _checked(rows: Sequence[Any]) -> list[Any]:
    return [row if ok else None for row, ok in zip(rows, finite(rows), strict=True)]


def finite(rows: Sequence[Any]) -> Sequence[bool]:
    """Whether each row has numbers alone."""
    if isinstance(rows, np.ndarray):
        return list(np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))
    return [_finite(row) for row in rows]


def _finite(row: Any) -> bool:
    """Of an array, or of a tuple of them, in which some may be None."""
    if isinstance(row, tuple):
        return all(part is None or _finite(part) for part in row)
    return bool(np.isfinite(row).all())


def _fail(job: Job[Any], error: BaseException) -> None:
    with suppress(InvalidStateError):  # it is done, or its caller has gone
        job.future.set_exception(error)
