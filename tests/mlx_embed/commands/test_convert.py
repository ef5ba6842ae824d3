"""`mlx-embed convert` shows signs of life on a terminal, and none elsewhere. What it does is tested with `convert`."""

import io
import sys
from pathlib import Path

import pytest

from mlx_embed import cli, texts
from tests.conftest import DATA
from tests.mlx_embed.test_cli import Terminal
from tests.mlx_embed.test_evaluation import beir

STEPS = [f"... Writing the weights of {DATA / 'tiny-bert'}.", "... Comparing vectors with the source's."]


@pytest.mark.parametrize("terminal", [True, False])
def test_steps(terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    assert cli.main(["convert", str(DATA / "tiny-bert"), str(tmp_path / "a")]) == 0
    assert sys.stderr.getvalue().splitlines() == (STEPS if terminal else [])  # type: ignore[attr-defined]


def test_an_evaluation_has_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(texts, "BAR_AFTER", 0.0)
    folder = beir(tmp_path / "data")
    assert cli.main(["convert", str(DATA / "tiny-bert"), str(tmp_path / "a"), "--evaluate", str(folder)]) == 0
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "... Embedding 35 documents and queries with both models.\n" in shown
    assert "70/70" in shown


@pytest.mark.parametrize("bits", ["int8", "3", "-8", "8.0", ""])
def test_bits_that_there_are_none(bits: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["convert", str(DATA / "tiny-bert"), str(tmp_path / "a"), f"--quantize={bits}"])
    said = capsys.readouterr().err
    assert "int8-cpu" in said
    assert "_quantization" not in said


def test_int8_is_not_said_to_be_computed_in_float32(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["convert", str(DATA / "tiny-bert"), str(tmp_path / "a"), "--quantize", "int8-cpu", "--dtype=float16"])
        == 0
    )
    said = capsys.readouterr().out
    assert "on a CPU computed in int8" in said
    assert "float32" not in said
