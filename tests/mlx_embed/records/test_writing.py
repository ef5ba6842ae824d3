"""The files beside one that is being written: whose they are while runs begin and end."""

import fcntl
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed.records.writing import Partial


def begun(target: Path, value: float) -> Partial:
    partial = Partial(target)
    partial.begin({}, 3, np.float32, resume=False)
    partial.append(np.full((2, 3), value), ["a", "b"], {})
    return partial


def ended(partial: Partial) -> None:
    with partial:
        partial.finish()


def test_a_run_begins_while_another_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just before it has the lock, the run before it puts its file in its place, and lets go."""
    target, lock = tmp_path / "out.npy", fcntl.flock
    first = begun(target, 1)

    def late(file: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        ended(first)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    second = begun(target, 2)
    assert (np.load(target) == 1).all(), "the first's file is not the second's to write"
    ended(second)
    assert (np.load(target) == 2).all()
    assert {path.name for path in tmp_path.iterdir()} == {"out.npy", "out.ids.jsonl"}


def test_a_third_run_begins_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, lock, third = tmp_path / "out.npy", fcntl.flock, []
    first = begun(target, 1)

    def late(file: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        ended(first)
        third.append(begun(target, 3))
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(ValueError, match="Another run is writing"):
        Partial(target)
    ended(third[0])
    assert (np.load(target) == 3).all()


def test_no_run_begins_before_another_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, replace = tmp_path / "out.npy", os.replace

    def then(source: Path, place: Path) -> None:
        replace(source, place)
        if place == target:
            with pytest.raises(ValueError, match="Another run is writing"):
                Partial(target)

    first = begun(target, 1)
    monkeypatch.setattr(os, "replace", then)
    ended(first)
    assert {path.name for path in tmp_path.iterdir()} == {"out.npy", "out.ids.jsonl"}
