"""The switch holds for one thread or task, and for nobody beside it."""

import asyncio
import threading

import pytest

from custom_kernels import use_kernels
from custom_kernels.choice.switch import kernels_wanted


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLX_EMBED_KERNELS", raising=False)


def test_the_innermost_block_decides_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels_wanted()
    with use_kernels(False):
        assert not kernels_wanted()
        with use_kernels(True):
            assert kernels_wanted()
        assert not kernels_wanted()
        with pytest.raises(KeyError), use_kernels(True):
            raise KeyError
        assert not kernels_wanted()
    assert kernels_wanted()
    monkeypatch.setenv("MLX_EMBED_KERNELS", "reference")
    assert not kernels_wanted()
    with use_kernels(True):
        assert kernels_wanted()
    assert not kernels_wanted()


def test_threads_do_not_disturb_each_other() -> None:
    """Two threads are in their blocks at once, and leave them in the order in which they came."""
    both_inside, first_left = threading.Barrier(3, timeout=30), threading.Barrier(3, timeout=30)
    seen: dict[str, list[bool]] = {}

    def work(name: str, wanted: bool, leaves_first: bool) -> None:
        found = [kernels_wanted()]
        with use_kernels(wanted):
            both_inside.wait()
            found.append(kernels_wanted())
            if not leaves_first:
                first_left.wait()
            found.append(kernels_wanted())
        if leaves_first:
            first_left.wait()
        found.append(kernels_wanted())
        seen[name] = found

    threads = [
        threading.Thread(target=work, args=("off", False, True)),
        threading.Thread(target=work, args=("on", True, False)),
    ]
    for thread in threads:
        thread.start()
    both_inside.wait()
    assert kernels_wanted(), "nobody else's block holds here"
    first_left.wait()
    for thread in threads:
        thread.join()
    assert seen == {"off": [True, False, False, True], "on": [True, True, True, True]}
    assert kernels_wanted()


def test_many_threads_that_come_and_go_leave_nothing() -> None:
    wrong: list[bool] = []

    def work(wanted: bool) -> None:
        for _ in range(2000):
            with use_kernels(wanted):
                if kernels_wanted() != wanted:
                    wrong.append(wanted)

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert kernels_wanted()


def test_a_thread_that_is_started_within_a_block_follows_the_environment() -> None:
    seen: list[bool] = []
    with use_kernels(False):
        thread = threading.Thread(target=lambda: seen.append(kernels_wanted()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_tasks_do_not_disturb_each_other() -> None:
    async def work(wanted: bool, inside: asyncio.Event, other: asyncio.Event) -> list[bool]:
        found = [kernels_wanted()]
        with use_kernels(wanted):
            inside.set()
            await other.wait()
            found.append(kernels_wanted())
            found.append(await asyncio.to_thread(kernels_wanted))
            await asyncio.sleep(0)
            found.append(kernels_wanted())
        return [*found, kernels_wanted()]

    async def both() -> list[list[bool]]:
        first, second = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(work(False, first, second), work(True, second, first))

    assert asyncio.run(both()) == [[True, False, False, False, True], [True, True, True, True, True]]
    assert kernels_wanted()


def test_what_to_thread_runs_leaves_its_caller_alone() -> None:
    def switched() -> bool:
        with use_kernels(True):
            return kernels_wanted()

    async def work() -> list[bool]:
        with use_kernels(False):
            return [kernels_wanted(), await asyncio.to_thread(switched), kernels_wanted()]

    assert asyncio.run(work()) == [False, True, False]
