"""The one thread on which all MLX work of the process runs."""

import atexit
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import NoReturn, TypeVar

import mlx.core as mx

Result = TypeVar("Result")


class _Worker:
    """A thread for MLX work: its streams and compiled graphs belong to the thread that made them.

    It is a daemon that never ends: MLX can abort the process at exit where a thread that used it has ended before,
    which is what an executor's threads do. So at exit it finishes what MLX is doing, and then waits for ever.

    Attributes:
        ending: whether the process is about to exit; work of many steps then stops between two of them.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None]] | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._imported_by = os.getpid()
        self.ending = False
        self._stopped = threading.Event()
        # Those of the thread that have had work, by device.
        self._streams: dict[str, mx.Stream] = {}
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)
        # At import, so that what is registered with `atexit` later, and runs before, may still use models.
        atexit.register(self._end)

    def submit(self, work: Callable[[], Result]) -> "Future[Result]":
        """Run `work` on the thread, after all that was submitted before; at once where this is that thread."""
        future: Future[Result] = Future()

        def task() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        if self.is_here:
            task()
        else:
            self.later(task)
        return future

    def later(self, task: Callable[[], None]) -> None:
        """Run `task`, which raises nothing, on the thread, after all that was submitted before."""
        # On the thread itself nothing is refused, not even at exit: it is what lets the process go.
        (self._queue if self.is_here and self._queue is not None else self._started()).put(task)

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is the one."""
        return threading.current_thread() is self._thread

    def run(self, work: Callable[[], Result], device: mx.Device | None = None) -> Result:
        """Run `work` on the thread, with `device` as MLX's default, and wait for what it returns or raises."""

        def there() -> Result:
            used = mx.default_device() if device is None else device
            self._streams[str(used)] = mx.default_stream(used)
            with mx.stream(used):
                return work()

        return self.submit(there).result()

    def stop_if_ending(self) -> None:
        """On the thread: at exit, wait for what MLX is doing, and do not come back."""
        if self.ending:
            with suppress(Exception):  # an error of the device has no reader left
                for stream in self._streams.values():
                    mx.synchronize(stream)
            self._stopped.set()
            _wait_for_ever()

    def _started(self) -> "SimpleQueue[Callable[[], None]]":
        if self.ending:
            if threading.current_thread() is not threading.main_thread():
                _wait_for_ever()  # a daemon thread, which goes with the process
            raise RuntimeError("The process is ending, and MLX has been stopped; use models before that.")
        with self._lock:
            if mx.cuda.is_available() and self._imported_by != os.getpid():
                raise RuntimeError(
                    "This process was forked after mlx_embed had been imported, and CUDA does not survive a fork. "
                    'Import it in the child only, or start processes with multiprocessing\'s "spawn" method.'
                )
            if self._queue is None:
                self._queue = SimpleQueue()
                self._pid = os.getpid()
                self._thread = threading.Thread(target=self._serve, args=(self._queue,), name="mlx-embed", daemon=True)
                self._thread.start()
            elif self._pid != os.getpid():
                raise RuntimeError(
                    "This process was forked after mlx_embed had started, and MLX does not survive a fork. Load the "
                    'model in the child only, or start processes with multiprocessing\'s "spawn" method.'
                )
            return self._queue

    def _serve(self, queue: "SimpleQueue[Callable[[], None]]") -> None:
        while True:
            task = queue.get()
            self.stop_if_ending()
            task()

    def _end(self) -> None:
        """Leaving while a batch is being computed would pull MLX away from under it."""
        self.ending = True
        if self._queue is not None and self._pid == os.getpid():
            self._queue.put(lambda: None)
            self._stopped.wait()

    def _renew_lock(self) -> None:
        """In a forked child, where the thread that held the lock when it was copied does not exist."""
        self._lock = threading.Lock()


def _wait_for_ever() -> NoReturn:
    while True:
        threading.Event().wait()


worker = _Worker()
