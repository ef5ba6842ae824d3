"""What a process of `processes.Processes` does: python -m mlx_embed.jobs.worker CONNECTION MEMORY...

The first half of the memory is for tasks, the other for results; each task has its place in both, in turn.
"""

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeAlias

import numpy as np

from mlx_embed.jobs.memory import SharedArray
from mlx_embed.progress import Progress
from mlx_embed.texts import advancing

Wait: TypeAlias = Callable[[], Any]
# Seconds that a thread computes in Python while another one waits to: the thread of the GPU waits often, for little.
SWITCH = 0.0005
# Seconds from one message of how many texts were embedded to the next.
TOLD_EVERY = 1.0


class Told(Progress):
    """Tells whoever gave the tasks, now and then, how many more texts were embedded."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        super().__init__()
        self._send, self._told, self._last = send, 0, time.monotonic()

    def __call__(self, count: int) -> None:
        """So many more are done."""
        super().__call__(count)
        if time.monotonic() - self._last >= TOLD_EVERY:
            self._send(("embedded", self.done - self._told))
            self._told, self._last = self.done, time.monotonic()


def main(connection: "Connection[Any, Any]", tasks: list[SharedArray], results: list[SharedArray]) -> None:
    """Make what does tasks, then do them, until nobody asks any more: one is begun while another is waited for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; whoever started this one ends it
    sys.setswitchinterval(SWITCH)
    messages: SimpleQueue[Any] = SimpleQueue()
    Thread(target=_listen, args=(connection, messages), daemon=True).start()
    try:
        do = pickle.loads(messages.get())()
    except Exception as error:
        connection.send(("failed", _sendable(error)))
        return
    # A task is begun here and waited for there. What cannot be begun is done there altogether.
    begin: Callable[[Any], Wait] = getattr(do, "begin", None) or (lambda task: partial(do, task))
    begun: SimpleQueue[Wait] = SimpleQueue()
    Thread(target=_answer, args=(connection, begun, results), daemon=True).start()
    for slot in cycle(tasks):
        begun.put(_begun(begin, messages.get(), slot))


def _listen(connection: "Connection[Any, Any]", messages: "SimpleQueue[Any]") -> None:
    """Take what is sent at once, so that nobody waits for it, and end this process when nobody is there to send."""
    try:
        while True:
            messages.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _begun(begin: Callable[[Any], Wait], message: bytes | int, slot: SharedArray) -> Wait:
    """What waits for a task's result; the task lies in the slot, in so many bytes, or is the message."""
    try:
        return begin(pickle.loads(slot.read((message,), "u1").data if isinstance(message, int) else message))
    except Exception as error:
        return partial(_raise, error)


def _raise(error: Exception) -> None:
    raise error


def _answer(connection: "Connection[Any, Any]", begun: "SimpleQueue[Wait]", results: list[SharedArray]) -> None:
    lock = Lock()  # the engine's thread tells what is embedded, and this one answers

    def send(message: Any) -> None:
        with lock:
            connection.send(message)

    with advancing(Told(send)):
        for slot in cycle(results):
            send(_done(begun.get(), slot))


def _done(wait: Wait, slot: SharedArray) -> tuple[str, Any]:
    """The answer to a task: an array lies in the slot, and anything else is in the answer."""
    try:
        result = wait()
        if isinstance(result, np.ndarray):
            try:
                slot.write(result)
                return "array", (result.shape, result.dtype.str)
            except OSError:  # no room: a container's shared memory may be small
                return "result", result
        return "result", result
    except Exception as error:
        return "failed", _sendable(error)


def _sendable(error: Exception) -> Exception:
    """The error, or one that says the same, where it cannot travel."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    number, *numbers = [int(argument) for argument in sys.argv[1:]]
    memory = [SharedArray(each) for each in numbers]
    main(Connection(number), memory[: len(memory) // 2], memory[len(memory) // 2 :])
