"""Processes that do tasks, die, fail, and are ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed.jobs import memory
from mlx_embed.jobs.devices import environments_of, share_of_threads, visible_gpus
from mlx_embed.jobs.processes import Processes, WorkerError
from tests.conftest import ROOT
from tests.mlx_embed.jobs import tasks
from tests.mlx_embed.jobs.tasks import Beginning, Counting


def done(folder: Path, *given: tuple[str, int], workers: int = 2, ahead: int = 1) -> dict[int, Any]:
    with Processes(Counting(str(folder)), [{}] * workers, ahead=ahead) as processes:
        return {
            number: result.copy() if isinstance(result, np.ndarray) else result
            for number, result in processes.results(given)
        }


def test_what_a_task_embeds_is_told_before_it_is_done(tmp_path: Path) -> None:
    told: list[int] = []
    with Processes(Counting(str(tmp_path)), [{}], embedded=told.append) as processes:
        assert list(processes.results([("embed", 3), ("count", 1)])) == [(0, 30), (1, 10)]
    assert sum(told) == 21


def begun(folder: Path, task: int) -> int:
    return len(list(folder.glob(f"{task}.*")))


@pytest.mark.parametrize("ahead", [1, 2])
def test_every_task_is_done_once(ahead: int, tmp_path: Path) -> None:
    assert done(tmp_path, *(("count", n) for n in range(20)), ahead=ahead) == {n: n * 10 for n in range(20)}
    assert len(list(tmp_path.iterdir())) == 20
    assert len({path.suffix for path in tmp_path.iterdir()}) == 2  # by both


def test_arrays_of_any_size(tmp_path: Path) -> None:
    sizes = [3, 0, 100_000, 1, 200_000, 7]
    found = done(tmp_path, *(("array", size) for size in sizes), ahead=2)
    for number, size in enumerate(sizes):
        assert found[number].shape == (size, 3)
        assert found[number].dtype == np.float32
        assert (found[number] == size).all()


@pytest.mark.parametrize("ahead", [1, 2])
def test_what_a_killed_process_had_is_done_by_another_once_more(ahead: int, tmp_path: Path) -> None:
    given = [("kill once" if n == 3 else "count", n) for n in range(8)]
    assert done(tmp_path, *given, ahead=ahead) == {n: n * 10 for n in range(8)}
    assert [begun(tmp_path, n) for n in range(8)] == [1, 1, 1, 2, 1, 1, 1, 1]


def test_a_task_that_kills_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="signal 9, and the one before it"):
        done(tmp_path, ("count", 1), ("kill", 2), ("count", 3))
    assert begun(tmp_path, 2) == 2


def test_what_a_task_raises_is_raised(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no 2"):
        done(tmp_path, ("raise", 2))
    with pytest.raises(RuntimeError, match="OddError: <function"):
        done(tmp_path, ("odd error", 2))


def test_what_cannot_be_made_is_told() -> None:
    with Processes(tasks.broken, [{}]) as processes, pytest.raises(OSError, match="no model here"):
        list(processes.results([1]))
    with Processes(tasks.dying, [{}]) as processes, pytest.raises(WorkerError, match="status 3"):
        list(processes.results([1]))


def test_processes_are_ended_with_what_they_were_doing(tmp_path: Path) -> None:
    with Processes(Counting(str(tmp_path)), [{}, {}]) as processes:
        pids = processes.pids
        results = processes.results([("sleep", 100), ("count", 1)])
        assert next(results) == (1, 10)
        start = time.monotonic()
    assert time.monotonic() - start < 10
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_each_has_its_environment(tmp_path: Path) -> None:
    with Processes(Counting(str(tmp_path)), [{**share_of_threads(10**6), "OWN": "x"}]) as processes:
        assert list(processes.results([("environment", 0)])) == [(0, ("1", "1", "x"))]


SCRIPT = """
import sys
from mlx_embed.jobs.processes import Processes
from tests.mlx_embed.jobs.tasks import Beginning, Counting
processes = Processes(Counting(sys.argv[1]), [{}, {}])
print(*processes.pids, flush=True)
list(processes.results([("sleep", 100), ("sleep", 100)]))
"""


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(by: int, tmp_path: Path) -> None:
    """A script without `if __name__ == "__main__"`, killed, or ended by Ctrl-C, which reaches all of its group."""
    script = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings, start_new_session=True
    )
    assert parent.stdout is not None
    assert parent.stderr is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    end = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(parent.pid, by) if by == signal.SIGKILL else os.killpg(parent.pid, by)
    parent.wait(60)
    assert parent.stderr.read().count("Traceback") == (by == signal.SIGINT)
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(pids) == 2
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_shared_memory_that_is_full_is_gone_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    from mlx_embed.jobs import worker

    with memory.file() as file:
        slot = memory.SharedArray(file.fileno())
        array = np.arange(6.0).reshape(2, 3)
        assert worker._done(lambda: array, slot) == ("array", ((2, 3), "<f8"))
        assert (slot.read((2, 3), "<f8") == array).all()
        monkeypatch.setattr(os, "posix_fallocate", full)
        kind, found = worker._done(lambda: np.zeros(1000), slot)
        assert (kind, found.shape) == ("result", (1000,))
    # Tasks of this process go through the connection, and results of the others through their memory.
    assert [found.shape for found in done(tmp_path, ("array", 5), ("array", 6), ahead=2).values()] == [(5, 3), (6, 3)]


@pytest.mark.parametrize("ahead", [1, 3])
def test_tasks_are_begun_while_others_are_waited_for(ahead: int, tmp_path: Path) -> None:
    """As many as a process has at a time, in their order, each once."""
    with Processes(Beginning(str(tmp_path)), [{}], ahead=ahead) as processes:
        given = [("count", n) for n in range(7)]
        assert list(processes.results(given)) == [(n, n * 10) for n in range(7)]
    events = Path(tmp_path, "events").read_text().split()
    assert [event for event in events if event[0] == "b"] == [f"b{n}" for n in range(7)]
    assert [event for event in events if event[0] == "w"] == [f"w{n}" for n in range(7)]
    most = max(events.index(f"w{n}") - events.index(f"b{n}") for n in range(7))
    assert (most > 1) == (ahead > 1)


def test_what_fails_when_it_is_begun(tmp_path: Path) -> None:
    with Processes(Beginning(str(tmp_path)), [{}], ahead=2) as processes:
        results = processes.results([("count", 1), ("raise at once", 2)])
        assert next(results) == (0, 10)
        with pytest.raises(LookupError, match="no 2"):
            next(results)


def test_a_process_that_dies_while_it_begins(tmp_path: Path) -> None:
    """What it had not finished is done by another, in its order."""
    with Processes(Beginning(str(tmp_path)), [{}], ahead=3) as processes:
        given = [("kill once" if n == 2 else "count", n) for n in range(6)]
        assert sorted(processes.results(given)) == [(n, n * 10) for n in range(6)]


def test_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(environments_of(3, "cpu")) == 3
    assert len(environments_of(None, "cpu")) == 1
    with pytest.raises(ValueError, match="workers 0"):
        environments_of(0, "cpu")
    import mlx.core as mx

    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-x")
    assert visible_gpus() == ["3", "GPU-x"]
    monkeypatch.setattr("mlx_embed.jobs.devices.resolve_device", lambda device: mx.Device(mx.gpu))
    assert [found["CUDA_VISIBLE_DEVICES"] for found in environments_of(None)] == ["3", "GPU-x"]
    assert [found["CUDA_VISIBLE_DEVICES"] for found in environments_of(3)] == ["3", "GPU-x", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
