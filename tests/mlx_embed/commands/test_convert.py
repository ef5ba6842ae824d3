"""`mlx-embed convert` shows signs of life on a terminal, and none elsewhere. What it does is tested with `convert`."""

import io
import sys
from pathlib import Path

import pytest

from mlx_embed import cli
from tests.conftest import DATA
from tests.mlx_embed.test_cli import Terminal
from tests.mlx_embed.test_evaluation import beir

STEPS = ["... writing the weights", "... comparing sample texts with the source"]


@pytest.mark.parametrize("terminal", [True, False])
def test_steps(terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    assert cli.main(["convert", str(DATA / "tiny-bert"), str(tmp_path / "a")]) == 0
    assert sys.stderr.getvalue().splitlines() == (STEPS if terminal else [])  # type: ignore[attr-defined]


def test_an_evaluation_has_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    folder = beir(tmp_path / "data")
    assert cli.main(["convert", str(DATA / "tiny-bert"), str(tmp_path / "a"), "--evaluate", str(folder)]) == 0
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "... embedding 30 documents before and after\n" in shown
    assert shown.count("30/30") >= 2
