"""The one thread on which all MLX work of the process runs."""

import atexit
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

import mlx.core as mx

Result = TypeVar("Result")


class _Worker:
    """A thread for MLX work: its streams and compiled graphs belong to the thread that made them.

    It is a daemon that never ends: MLX can abort the process at exit where a thread that used it has ended before,
    which is what an executor's threads do.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Callable[[], None]] | None = None
        self._pid = 0

    def submit(self, work: Callable[[], Result]) -> "Future[Result]":
        """Run `work` on the thread, after all that was submitted before."""
        future: Future[Result] = Future()

        def task() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._started().put(task)
        return future

    def run(self, work: Callable[[], Result], device: mx.Device | None = None) -> Result:
        """Run `work` on the thread, with `device` as MLX's default, and wait for what it returns or raises."""

        def there() -> Result:
            with mx.stream(mx.default_device() if device is None else device):
                return work()

        return self.submit(there).result()

    def _started(self) -> "SimpleQueue[Callable[[], None]]":
        with self._lock:
            if self._queue is None:
                self._queue = SimpleQueue()
                self._pid = os.getpid()
                threading.Thread(target=self._serve, args=(self._queue,), name="mlx-embed", daemon=True).start()
                # Leaving while a batch is being computed would pull MLX away from under it.
                atexit.register(self._drain)
            elif self._pid != os.getpid():
                raise RuntimeError(
                    "This process was forked after mlx_embed had started, and MLX does not survive a fork. Load the "
                    'model in the child only, or start processes with multiprocessing\'s "spawn" method.'
                )
            return self._queue

    def _drain(self) -> None:
        if self._pid == os.getpid():
            self.run(lambda: None)

    @staticmethod
    def _serve(queue: "SimpleQueue[Callable[[], None]]") -> None:
        while True:
            queue.get()()


worker = _Worker()
