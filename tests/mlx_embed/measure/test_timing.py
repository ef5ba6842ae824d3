"""Timing by turns, on a clock that the test moves."""

from collections.abc import Callable

import pytest

from mlx_embed.measure.timing import PLAN, Plan, Timing, interleaved


class Machine:
    """A clock, and one core that threads left spinning by someone's work take away from everybody's."""

    def __init__(self) -> None:
        self.now = 0.0
        self.spinning_until = 0.0
        self.runs: list[str] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def work(self, name: str, *seconds: float, spins: float = 0.0) -> Callable[[], None]:
        """Takes so many seconds, run after run, the last for ever; and twice as many while threads spin."""
        left = list(seconds)

        def run() -> None:
            took = left.pop(0) if len(left) > 1 else left[0]
            self.runs.append(name)
            self.now += took * (2 if self.now < self.spinning_until else 1)
            self.spinning_until = max(self.spinning_until, self.now + spins)

        return run


@pytest.fixture
def machine() -> Machine:
    return Machine()


def timed(machine: Machine, works: dict[str, Callable[[], None]], **options: object) -> dict[str, Timing]:
    return interleaved(works, clock=machine.clock, sleep=machine.sleep, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0.008, 0.08])
def test_threads_that_spin_after_their_work_slow_nobody_else(machine: Machine, seconds: float) -> None:
    works = {"mlx": machine.work("mlx", 0.2, spins=0.03), "native": machine.work("native", seconds)}
    found = timed(machine, works)
    assert found["native"].seconds == pytest.approx(seconds)
    assert found["native"].most == pytest.approx(seconds)
    assert found["mlx"].seconds == pytest.approx(0.2)


def test_sides_take_turns(machine: Machine) -> None:
    works = {name: machine.work(name, 0.2) for name in "ab"}
    timed(machine, works, plan=Plan(rounds=3))
    assert machine.runs == ["a", "b", *"ababab"]


def test_a_slow_side_stops_early_and_the_others_go_on(machine: Machine) -> None:
    found = timed(machine, {"slow": machine.work("slow", 0.3), "fast": machine.work("fast", 0.06)})
    assert found["slow"].rounds == 2
    assert found["fast"].rounds == PLAN.rounds
    assert machine.runs.count("slow") == 1 + 2


def test_every_side_has_one_round(machine: Machine) -> None:
    found = timed(machine, {"a": machine.work("a", 100.0)}, cold=["a"])
    assert found["a"] == Timing(100.0, 100.0, 100.0, 1)
    assert machine.runs == ["a"]


def test_the_warm_up_does_not_count(machine: Machine) -> None:
    found = timed(machine, {"compiles": machine.work("compiles", 60.0, 0.5)}, plan=Plan(rounds=3, seconds=10))
    assert found["compiles"] == Timing(pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5), 3)


def test_short_work_is_repeated_within_a_turn(machine: Machine) -> None:
    found = timed(machine, {"short": machine.work("short", 0.0101)}, plan=Plan(rounds=2))
    assert found["short"].seconds == pytest.approx(0.0101)
    # One to warm up, then for each round one that brings back the caches, and five that fill the turn.
    assert len(machine.runs) == 1 + 2 * (1 + 5)


def test_the_median_of_the_rounds_and_their_ends(machine: Machine) -> None:
    found = timed(machine, {"a": machine.work("a", 9.0, 0.1, 0.4, 0.2)}, plan=Plan(rounds=3, seconds=10))["a"]
    assert (found.seconds, found.least, found.most) == pytest.approx((0.2, 0.1, 0.4))
    assert found.spread == pytest.approx(1.5)


def test_what_is_prepared_is_not_timed(machine: Machine) -> None:
    def prepare() -> Callable[[], None]:
        machine.now += 5.0
        return machine.work("prepared", 0.1)

    found = interleaved({"a": prepare}, prepared=True, clock=machine.clock, sleep=machine.sleep)
    assert found["a"].seconds == pytest.approx(0.1)


def test_one_of_many() -> None:
    assert Timing(4.0, 2.0, 6.0, 3).divided(2) == Timing(2.0, 1.0, 3.0, 3)


@pytest.mark.parametrize(
    ("one", "other", "contradict"),
    [
        (Timing(1.0, 0.9, 1.1, 5), Timing(2.0, 1.9, 2.1, 5), True),
        (Timing(1.0, 0.9, 1.1, 5), Timing(1.3, 1.2, 1.4, 5), False),  # within noise
        (Timing(1.0, 0.9, 2.5, 5), Timing(2.0, 1.9, 2.1, 5), False),  # one round was as slow
        (Timing(1.0, 0.9, 1.1, 2), Timing(2.0, 1.9, 2.1, 5), False),  # too few rounds
    ],
)
def test_contradictions(one: Timing, other: Timing, contradict: bool) -> None:
    assert one.contradicts(other) == other.contradicts(one) == contradict
