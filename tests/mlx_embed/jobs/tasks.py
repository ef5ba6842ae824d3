"""What the processes of the tests do: a module, so that they can import it."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlx_embed.jobs.shards import Done, Shard
from mlx_embed.texts import progress


class Counting:
    """Does tasks by their kind, and leaves a file in `folder` for each that it has begun."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self) -> Any:
        return self._do

    def _do(self, task: tuple[str, int]) -> Any:
        kind, number = task
        begun = Path(self._folder, f"{number}.{os.getpid()}")
        first = not list(Path(self._folder).glob(f"{number}.*"))
        begun.touch()
        if kind == "kill" or (kind == "kill once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "raise":
            raise LookupError(f"no {number}")
        if kind == "odd error":
            raise OddError(lambda: 0)
        if kind == "array":
            return np.full((number, 3), number, dtype=np.float32)
        if kind == "sleep":
            time.sleep(number)
        if kind == "embed":
            vars(sys.modules["__main__"])["TOLD_EVERY"] = 0  # the worker's
            with progress(None, None) as advance:
                for _ in range(number):
                    advance(7)
        if kind == "environment":
            return os.environ["MLX_EMBED_NUM_THREADS"], os.environ["RAYON_NUM_THREADS"], os.environ.get("OWN")
        return number * 10


class Beginning:
    """Begins tasks, waits for each a little, and leaves in the file `events` which was begun and waited for."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def __call__(self) -> Any:
        return self

    def begin(self, task: tuple[str, int]) -> Any:
        kind, number = task
        self._say(f"b{number}")
        if kind == "raise at once":
            raise LookupError(f"no {number}")
        if kind == "kill once" and not Path(self._folder, "killed").exists():
            Path(self._folder, "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

        def wait() -> int:
            time.sleep(0.05)
            self._say(f"w{number}")
            return number * 10

        return wait

    def _say(self, event: str) -> None:
        with Path(self._folder, "events").open("a") as file:
            file.write(f"{event} ")


class OddError(Exception):
    """One that no pickle carries."""


def broken() -> Any:
    raise OSError("no model here")


def dying() -> Any:
    os._exit(3)


class Slow:
    """Does a shard of a job slowly, after it has left a file beside the output for each that it has begun."""

    def __init__(self, work: Any, seconds: float) -> None:
        self._work, self._seconds = work, seconds

    def __call__(self) -> Any:
        do = self._work()

        def slowly(shard: Shard) -> Done:
            Path(self._work.folder, f".begun-{shard.number}-{os.getpid()}").touch()
            time.sleep(self._seconds)
            done: Done = do(shard)
            return done

        return slowly
