"""Which way to compute an op is fastest on this machine: measured once, and remembered.

The file `mlx-embed/kernels.json` in the user's cache folder (`$XDG_CACHE_HOME`, or `~/.cache`) holds the seconds of
each candidate by machine and code, op, and shape class. It may be deleted at any time; what cannot be read in
it is measured again.
"""

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import mlx.core as mx

from custom_kernels.choice.machine import machine, sources

# Makes the op's result; given the result of a run before it, only once that is there.
Run: TypeAlias = Callable[[mx.array | None], mx.array]

# Runs in a chain, as the ops of a model are: of many tokens, and of few, where one takes microseconds.
REPEATS, SHORT_REPEATS = 5, 20
# Seconds of runs before any counts: until then a GPU may not have its full clock.
WARM_UP = 0.07
ROUNDS = 3
# A later candidate must beat an earlier one by this much: smaller differences are noise.
MARGIN = 0.03


def best(
    op: str,
    shape_class: str,
    candidates: Mapping[str, Run],
    *,
    repeats: int = REPEATS,
    budget: float = 0.1,
    again: bool = False,
    file: Path | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> str:
    """The name of the fastest candidate for `op` at `shape_class` on MLX's default device.

    Measures at the first call for this machine, MLX and code, op and class, or where the candidates are not those that
    were measured, or one of them did not run. It reads the file each time: call it once for a class.

    Args:
        op: such as "attention".
        shape_class: whatever decides, such as "float16 32x32 <=64".
        candidates: by name, functions that make the op's result on a typical input. The first is preferred where
            times are within 3 %.
        repeats: runs of a chain: see `measure`.
        budget: seconds to spend, beside what warms up, or the time of three rounds.
        again: measure even if the answer is known.
        file: where to remember; None for the user's cache folder.
        clock: seconds that pass.

    Raises:
        RuntimeError: no candidate runs.
    """
    file = file or cache_file()
    known = _read(file)
    seconds = _times(known, op, shape_class)
    if again or seconds.keys() != candidates.keys() or math.inf in seconds.values():
        seconds = measure(op, candidates, repeats=repeats, budget=budget, clock=clock)
        remember(op, shape_class, seconds, file)
    return fastest(op, {name: seconds[name] for name in candidates})


def fastest(op: str, seconds: Mapping[str, float]) -> str:
    """The name with the least of the `seconds`, or the first where it is within 3 % of that; see `best`."""
    winner = next(iter(seconds))
    for name in seconds:
        if seconds[name] < seconds[winner] * (1 - MARGIN):
            winner = name
    if math.isinf(seconds[winner]):
        raise RuntimeError(f"None of {', '.join(seconds)} computes {op} on this machine.")
    return winner


def remember(op: str, shape_class: str, seconds: Mapping[str, float], file: Path | None = None) -> None:
    """Let `best` know what `measure` found."""
    file = file or cache_file()
    known = _read(file)
    # null, not infinity, which is no JSON: a candidate that does not run here.
    times = {name: s if math.isfinite(s) else None for name, s in seconds.items()}
    known.setdefault(_here(), {}).setdefault(op, {})[shape_class] = times
    _write(file, known)


def cache_folder() -> Path:
    """This package's, among the user's."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-embed"


def cache_file() -> Path:
    """Where measurements are kept."""
    return cache_folder() / "kernels.json"


def repeats(many: bool) -> int:
    """How long a chain tells most, of many tokens or of few."""
    return REPEATS if many else SHORT_REPEATS


def measure(
    op: str,
    candidates: Mapping[str, Run],
    *,
    repeats: int = REPEATS,
    budget: float = 0.1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """What `best` measures: the least seconds of each candidate, infinite where it does not run.

    Chains of `repeats` runs, each of which waits for the one before. Candidates take turns, back and forth: until they
    have warmed the device up, then for at least three rounds.
    """

    def chain(name: str) -> float:
        start, found = clock(), None
        for _ in range(repeats):
            found = candidates[name](found)
        mx.eval(found)
        return (clock() - start) / repeats

    seconds = dict.fromkeys(candidates, math.inf)
    running = []
    for name, run in candidates.items():
        try:
            mx.eval(run(run(None)))  # compiles, and touches the memory
            running.append(name)
        except Exception as error:  # whatever a compiler or a driver may say
            warnings.warn(f"{name} does not compute {op} here: {str(error).strip()[:300]}", stacklevel=3)
    mx.synchronize()  # what was under way when the measurement was asked for
    warm = clock() + WARM_UP
    while running and clock() < warm:
        for name in running:
            chain(name)
    stop, rounds = clock() + budget, 0
    while running and (rounds < ROUNDS or clock() < stop):
        for name in running:
            seconds[name] = min(seconds[name], chain(name))
        running.reverse()
        rounds += 1
    return seconds


def _here() -> str:
    """The machine and the code that were timed."""
    return ", ".join((*machine(), sources()[:12]))


def _read(file: Path) -> dict[str, Any]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    levels = isinstance(known, dict) and all(
        isinstance(ops, dict) and all(isinstance(classes, dict) for classes in ops.values()) for ops in known.values()
    )
    return known if levels else {}


def _times(known: dict[str, Any], op: str, shape_class: str) -> dict[str, float]:
    times = known.get(_here(), {}).get(op, {}).get(shape_class)
    if not isinstance(times, dict) or not all(s is None or isinstance(s, float) for s in times.values()):
        return {}
    return {name: math.inf if s is None else s for name, s in times.items()}


def _write(file: Path, known: dict[str, Any]) -> None:
    """Replace the file in one step; where the folder cannot be written, nothing is remembered."""
    import tempfile

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, delete=False) as new:
            json.dump(known, new, indent=1)
        try:
            Path(new.name).replace(file)
        finally:
            Path(new.name).unlink(missing_ok=True)
    except OSError:
        return
