"""Choosing the fastest candidate, by a clock that only the candidates move."""

import json
import platform
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

from custom_kernels.choice import tune


class Machine:
    """Candidates that take the given seconds, and a clock that shows them."""

    def __init__(self, file: Path) -> None:
        self.now = 0.0
        self.runs = 0
        self.file = file

    def taking(self, *seconds: float) -> Callable[[], mx.array]:
        """The last of them from then on."""
        left = list(seconds)

        def run(before: mx.array | None = None) -> mx.array:
            self.runs += 1
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return mx.array(0.0)

        return run

    def best(self, candidates: dict[str, Callable[[], mx.array]], op: str = "attention", kind: str = "small", **more):
        return tune.best(op, kind, candidates, file=self.file, clock=lambda: self.now, **more)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "cache" / "kernels.json")


def broken(before: mx.array | None) -> mx.array:
    raise RuntimeError("no such instruction")


def test_the_fastest_wins_whatever_its_place(machine: Machine) -> None:
    a, b, c = machine.taking(3e-3), machine.taking(1e-3), machine.taking(2e-3)
    assert machine.best({"a": a, "b": b, "c": c}, kind="1") == "b"
    assert machine.best({"b": b, "c": c, "a": a}, kind="2") == "b"
    assert machine.best({"c": c, "a": a, "b": b}, kind="3") == "b"


def test_a_first_run_that_compiles_does_not_count(machine: Machine) -> None:
    assert machine.best({"a": machine.taking(1e-3), "b": machine.taking(5.0, 1e-4)}) == "b"


@pytest.mark.parametrize(
    "seconds", [[1e-4, *[0.01] * tune.REPEATS, 1e-4], [*[1e-4] * 80, 0.01]], ids=["first rounds", "last rounds"]
)
def test_disturbed_rounds_do_not_count(machine: Machine, seconds: list[float]) -> None:
    """67 runs warm the device up, so that the 80th is in the third round that counts."""
    assert machine.best({"a": machine.taking(1e-3), "b": machine.taking(*seconds)}) == "b"


@pytest.mark.parametrize(("second", "winner"), [(0.99e-3, "a"), (0.96e-3, "b")])
def test_the_first_wins_where_the_difference_is_small(machine: Machine, second: float, winner: str) -> None:
    assert machine.best({"a": machine.taking(1e-3), "b": machine.taking(second)}) == winner


def test_the_budget_is_kept(machine: Machine) -> None:
    machine.best({"a": machine.taking(1e-3), "b": machine.taking(2e-3)}, budget=0.1)
    first, a_round = 6e-3, 3e-3 * tune.REPEATS
    assert tune.WARM_UP + 0.1 <= machine.now - first < tune.WARM_UP + 0.1 + 2 * a_round
    slow = machine.now
    machine.best({"a": machine.taking(1.0), "b": machine.taking(2.0)}, kind="large", budget=0.1)
    assert machine.now - slow == pytest.approx(6 + 4 * 3 * tune.REPEATS), "a first run, and a warm and three rounds"


def logged(machine: Machine, seconds: float, order: list[tuple[str, mx.array | None]], name: str) -> tune.Run:
    run = machine.taking(seconds)

    def logging(before: mx.array | None) -> mx.array:
        order.append((name, before))
        return run()

    return logging


def test_candidates_take_turns_back_and_forth(machine: Machine) -> None:
    order: list[tuple[str, mx.array | None]] = []
    runs = {name: logged(machine, 0.02, order, name) for name in "ab"}
    machine.best(runs, repeats=2, budget=0.0)
    assert "".join(name for name, _ in order) == "aabb" + "aabb" + "aabb" + "bbaa" + "aabb"


def test_a_chain_is_of_runs_that_wait_for_each_other(machine: Machine) -> None:
    order: list[tuple[str, mx.array | None]] = []
    machine.best({"a": logged(machine, 0.01, order, "a")}, repeats=4, budget=0.0)
    chains = order[2:]
    assert len(chains) % 4 == 0
    assert [before is None for _, before in chains] == [True, False, False, False] * (len(chains) // 4)


def test_chains_of_few_tokens_are_longer() -> None:
    assert (tune.repeats(many=False), tune.repeats(many=True)) == (20, 5)


def test_measured_once(machine: Machine) -> None:
    candidates = {"a": machine.taking(2e-3), "b": machine.taking(1e-3)}
    assert machine.best(candidates) == "b"
    runs = machine.runs
    assert machine.best(candidates) == "b"
    assert machine.runs == runs
    assert [f.name for f in machine.file.parent.iterdir()] == ["kernels.json"], "no file is left behind"
    assert machine.best(candidates, again=True) == "b"
    assert machine.runs > runs


@pytest.mark.parametrize("change", ["op", "class", "device", "mlx", "system", "code", "candidates"])
def test_measured_anew_where_something_else_is_asked(
    machine: Machine, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = {"a": machine.taking(2e-3), "b": machine.taking(1e-3)}
    machine.best(candidates)
    runs, more = machine.runs, {}
    if change == "op":
        more = {"op": "layer_norm"}
    elif change == "class":
        more = {"kind": "large"}
    elif change == "device":
        monkeypatch.setattr(mx, "device_info", lambda: {"device_name": "another"})
    elif change == "mlx":
        monkeypatch.setattr("custom_kernels.choice.machine.mlx_version", lambda: "99.0")
    elif change == "system":
        monkeypatch.setattr(platform, "platform", lambda: "macOS-99")
    elif change == "code":
        monkeypatch.setattr(tune, "sources", lambda: "other code")
    else:
        candidates = {"a": candidates["a"], "c": candidates["b"]}
    assert machine.best(candidates, **more) in ("b", "c")
    assert machine.runs > runs
    monkeypatch.undo()
    runs = machine.runs
    machine.best(candidates, **more)
    assert machine.runs == runs, "what was known is still known"


def test_a_candidate_that_fails_is_left_out(machine: Machine) -> None:
    candidates = {"broken": broken, "a": machine.taking(1e-3)}
    with pytest.warns(UserWarning, match="broken does not compute attention here: no such instruction"):
        assert machine.best(candidates) == "a"


def test_what_once_failed_is_measured_again(machine: Machine) -> None:
    """An update of the system may have mended it."""
    a = machine.taking(1e-3)
    with pytest.warns(UserWarning, match="b does not compute attention here"):
        assert machine.best({"a": a, "b": broken}) == "a"
    assert machine.best({"a": a, "b": machine.taking(1e-4)}) == "b"


@pytest.mark.filterwarnings("ignore:broken")
def test_no_candidate_runs(machine: Machine) -> None:
    with pytest.raises(RuntimeError, match="None of broken computes attention"):
        machine.best({"broken": broken})


def damage(file: Path, how: str) -> None:
    known = json.loads(file.read_text())
    (ops,) = known.values()
    if how == "text":
        file.write_text(file.read_text()[:-5])
        return
    if how == "bytes":
        file.write_bytes(b"\xff\xfe\x00")
        return
    if how == "top":
        known = [known]
    elif how == "machine":
        known = dict.fromkeys(known, 3)
    elif how == "op":
        ops["attention"] = "fast"
    elif how == "class":
        ops["attention"]["small"] = ["a", "b"]
    else:
        ops["attention"]["small"] = {"a": "quick", "b": 1.0}
    file.write_text(json.dumps(known))


@pytest.mark.parametrize("how", ["text", "bytes", "top", "machine", "op", "class", "seconds"])
def test_a_damaged_file_is_measured_over(machine: Machine, how: str) -> None:
    candidates = {"a": machine.taking(2e-3), "b": machine.taking(1e-3)}
    machine.best(candidates)
    damage(machine.file, how)
    runs = machine.runs
    assert machine.best(candidates) == "b"
    assert machine.runs > runs
    runs = machine.runs
    assert machine.best(candidates) == "b"
    assert machine.runs == runs, "the file is whole again"


def test_a_folder_that_cannot_be_written(machine: Machine) -> None:
    machine.file.parent.write_text("a file where the folder should be")
    assert machine.best({"a": machine.taking(2e-3), "b": machine.taking(1e-3)}) == "b"


def test_the_file_is_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tune.cache_file() == tmp_path / "mlx-embed" / "kernels.json"
    assert (
        tune.best("sum", "4", {"a": lambda _: mx.ones(4).sum(), "b": lambda _: mx.ones(4).sum()}, budget=0.01) in "ab"
    )
    assert tune.cache_file().exists()
