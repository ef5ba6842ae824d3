"""What a process of `processes.Processes` does: python -m mlx_embed.jobs.worker CONNECTION MEMORY..."""

import os
import pickle
import signal
import sys
from itertools import cycle
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from mlx_embed.jobs.memory import SharedArray


def main(connection: "Connection[Any, Any]", slots: list[SharedArray]) -> None:
    """Make what does tasks, then do them, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; whoever started this one ends it
    messages: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_listen, args=(connection, messages), daemon=True).start()
    try:
        do = pickle.loads(messages.get())()
    except Exception as error:
        connection.send(("failed", _sendable(error)))
        return
    for slot in cycle(slots):
        message = messages.get()
        connection.send(_done(do, message, slot))


def _listen(connection: "Connection[Any, Any]", messages: "SimpleQueue[bytes]") -> None:
    """Take what is sent at once, so that nobody waits for it, and end this process when nobody is there to send."""
    try:
        while True:
            messages.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


def _done(do: Any, message: bytes, slot: SharedArray) -> tuple[str, Any]:
    """The answer to a task: an array lies in the slot, and anything else is in the answer."""
    try:
        result = do(pickle.loads(message))
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
    numbers = [int(argument) for argument in sys.argv[1:]]
    main(Connection(numbers[0]), [SharedArray(number) for number in numbers[1:]])
