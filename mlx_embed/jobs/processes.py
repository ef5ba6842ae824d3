"""Processes that do tasks: each has its own engine, and what one leaves undone when it dies, another does."""

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeAlias

import numpy as np

from mlx_embed.errors import MLXEmbedError
from mlx_embed.jobs.memory import SharedArray, file

Task: TypeAlias = Any
Result: TypeAlias = Any
# How often a task is begun: a process that dies may have been killed for reasons of its own, but not twice.
TRIES = 2
ENDED = "The processes were ended by another thread before all was done."


class Begins(Protocol):
    """What does tasks that can be begun."""

    def begin(self, task: Task) -> Callable[[], Result]:
        """Begin with a task; what comes back waits for its result."""
        ...


class WorkerError(MLXEmbedError):
    """Two processes died over the same task, or before they could begin with it; or all were ended meanwhile."""


@dataclass(frozen=True)
class _Given:
    number: int
    task: Task
    tries: int


@dataclass
class _Process:
    process: "subprocess.Popen[bytes]"
    connection: "Connection[Any, Any]"
    tasks: list[SharedArray]
    results: list[SharedArray]
    resources: ExitStack
    environment: Mapping[str, str]
    given: deque[_Given] = field(default_factory=deque)
    sent: int = 0
    answers: int = 0

    def send(self, given: _Given) -> None:
        """Give it a task: in shared memory, as it would have to read a long message in many pieces."""
        self.given.append(given)
        task = pickle.dumps(given.task, protocol=pickle.HIGHEST_PROTOCOL)
        message: bytes | int = len(task)
        try:
            self.tasks[self.sent % len(self.tasks)].write(np.frombuffer(task, dtype=np.uint8))
        except OSError:  # no room: a container's shared memory may be small
            message = task
        self.sent += 1
        with suppress(BrokenPipeError, ConnectionResetError):  # it is dead, which is found when it is listened to
            self.connection.send(message)


class Processes:
    """Some processes of this machine. A context manager: at its end they are ended.

    They are started as programs of their own, so that a script needs no `if __name__ == "__main__"`, and each has its
    environment before anything is imported.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[Task], Result] | Begins],
        environments: Sequence[Mapping[str, str]],
        *,
        ahead: int = 1,
        embedded: Callable[[int], Any] = lambda _: None,
    ) -> None:
        """Start a process for each environment, whose variables it has beside those of this process.

        Args:
            make: called in each, gives what does a task, or begins it: then the next are begun while it is waited for.
                Tasks and results travel by pickle; an array that is a result travels as it is, and is valid until the
                next result is asked for.
            environments: one a process.
            ahead: how many tasks a process has at a time. With 2 it has the next while the last is fetched.
            embedded: told now and then how many more texts are embedded, of tasks that are not done yet too.
        """
        self._make, self._ahead, self._embedded = make, ahead, embedded
        self._processes: list[_Process] = []
        try:
            for environment in environments:
                self._processes.append(self._started(environment))
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes."""
        return [process.process.pid for process in self._processes]

    def results(self, tasks: Iterable[Task]) -> Iterator[tuple[int, Result]]:
        """Each task's number, from 0, and its result, as they are done; tasks are taken as processes are free.

        Raises:
            Exception: what a task has raised.
            WorkerError: a process died, and the one before it that had the same task.
        """
        tasks = enumerate(tasks)
        again: deque[_Given] = deque()
        try:
            while True:
                for process in self._processes:
                    self._fill(process, tasks, again)
                busy = {process.connection: process for process in self._processes if process.given}
                if not self._processes:
                    raise WorkerError(ENDED)
                if not busy:
                    return
                for connection in wait(list(busy)):
                    yield from self._answer(busy[connection], again)  # type: ignore[index]
        except BaseException as error:
            ended = not self._processes
            # What is on its way would be taken for answers to other tasks.
            self.close()
            if ended and isinstance(error, (OSError, ValueError)):  # a connection that was closed while it was read
                raise WorkerError(ENDED) from error
            raise

    def close(self) -> None:
        """End the processes at once."""
        ended, self._processes = self._processes, []  # first, so that another thread knows why they die
        for process in ended:
            with suppress(ProcessLookupError):
                process.process.kill()
        for process in ended:
            process.process.wait()
            process.resources.close()

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _fill(self, process: _Process, tasks: Iterator[tuple[int, Task]], again: deque[_Given]) -> None:
        """Give a process what it may have at a time."""
        while len(process.given) < self._ahead:
            if again:
                given = again.popleft()
            else:
                following = next(tasks, None)
                if following is None:
                    return
                given = _Given(*following, 0)
            process.send(given)

    def _answer(self, process: _Process, again: deque[_Given]) -> Iterator[tuple[int, Result]]:
        try:
            kind, content = process.connection.recv()
        except (EOFError, ConnectionResetError):
            self._replace(process, again)
            return
        if kind == "failed":
            raise content
        if kind == "embedded":
            self._embedded(content)
            return
        given = process.given.popleft()
        slot = process.results[process.answers % len(process.results)]
        process.answers += 1
        yield given.number, slot.read(*content) if kind == "array" else content

    def _replace(self, process: _Process, again: deque[_Given]) -> None:
        """Start another in the place of one that has died, which was busy with the first task that it was given."""
        if process not in self._processes:
            raise WorkerError(ENDED)
        code = process.process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        first = process.given[0]
        if first.tries + 1 >= TRIES:
            raise WorkerError(
                f"A worker process {how}, and the one before it that had the same task died too. What they said is "
                "above; where they said nothing, there may be too little memory for so many of them."
            )
        rest = list(process.given)[1:]
        again.extendleft(reversed([_Given(first.number, first.task, first.tries + 1), *rest]))
        process.resources.close()
        self._processes[self._processes.index(process)] = self._started(process.environment)

    def _started(self, environment: Mapping[str, str]) -> _Process:
        with ExitStack() as stack:
            ours, theirs = Pipe()
            stack.callback(ours.close)
            memory = [stack.enter_context(file()) for _ in range(2 * self._ahead)]
            numbers = [theirs.fileno(), *(each.fileno() for each in memory)]
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", "mlx_embed.jobs.worker", *map(str, numbers)],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
                    pass_fds=numbers,
                    stdin=subprocess.DEVNULL,
                )
            finally:
                theirs.close()
            with suppress(BrokenPipeError, ConnectionResetError):
                ours.send(pickle.dumps(self._make))
            slots = [SharedArray(each.fileno()) for each in memory]
            tasks, results = slots[: self._ahead], slots[self._ahead :]
            return _Process(process, ours, tasks, results, stack.pop_all(), environment)
