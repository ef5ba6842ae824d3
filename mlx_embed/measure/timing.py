"""How long ways to do the same work take: in turn, round by round, and each undisturbed by the one before."""

import statistics
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Work: TypeAlias = Callable[[], Any]


@dataclass(frozen=True)
class Plan:
    """How to time.

    Attributes:
        rounds: at most so many.
        turn: seconds for which short work is repeated, after one run that brings its data back into the caches.
        pause: seconds before a turn, in which the threads of the work before come to rest: those of a BLAS spin for a
            while when it is done, OpenBLAS's for 2^26 ticks of the processor's clock, 30 ms or, as seen, up to 90.
        seconds: work that has run so long has no further turn; each has one.
    """

    rounds: int = 4
    turn: float = 0.05
    pause: float = 0.1
    seconds: float = 0.5


PLAN = Plan()


@dataclass(frozen=True)
class Timing:
    """Seconds of one run, as several rounds have found them.

    Attributes:
        seconds: the median of the rounds; a round's time is the median of its runs.
        least: of the quickest round.
        most: of the slowest.
        rounds: how many there were.
    """

    seconds: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, rounds: Collection[float]) -> "Timing":
        """The summary of the seconds of each round."""
        return cls(statistics.median(rounds), min(rounds), max(rounds), len(rounds))

    @property
    def spread(self) -> float:
        """What lies between the quickest and the slowest round, as a share of the median."""
        return (self.most - self.least) / self.seconds

    def divided(self, by: int) -> "Timing":
        """Of one of so many that a run has done."""
        return Timing(self.seconds / by, self.least / by, self.most / by, self.rounds)

    def contradicts(self, other: "Timing", factor: float = 1.5, rounds: int = 3) -> bool:
        """Whether both cannot be the time of the same work: far apart, and no round of one within those of the other.

        Fewer than `rounds` prove nothing.
        """
        low, high = sorted((self, other), key=lambda timing: timing.seconds)
        enough = min(self.rounds, other.rounds) >= rounds
        return enough and high.seconds > factor * low.seconds and high.least > low.most


def interleaved(
    works: Mapping[str, Work],
    *,
    cold: Collection[str] = (),
    prepared: bool = False,
    plan: Plan | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Timing]:
    """Time each of `works`, by name; every round gives all of them a turn.

    Args:
        works: what to time.
        cold: these need no warm-up, in which others compile: they have run before, or take long and compile nothing.
        prepared: each of `works` gives, at a call, what is to be timed, and has what that needs ready.
        plan: how; None for PLAN.
        clock: seconds that pass.
        sleep: lets them pass.
    """
    plan = plan or PLAN
    used = dict.fromkeys(works, 0.0)
    last = dict.fromkeys(works, float("inf"))

    def run(name: str) -> float:
        job = works[name]() if prepared else works[name]
        start = clock()
        job()
        last[name] = clock() - start
        used[name] += last[name]
        return last[name]

    for name in works:
        if name not in cold:
            run(name)
            used[name] = 0.0
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(plan.rounds):
        for name, times in found.items():
            if times and used[name] > plan.seconds:
                continue
            sleep(plan.pause)
            if last[name] < plan.turn:
                run(name)
            turn = [run(name)]
            while sum(turn) < plan.turn:
                turn.append(run(name))
            times.append(statistics.median(turn))
    return {name: Timing.of(times) for name, times in found.items()}
