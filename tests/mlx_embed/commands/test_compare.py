"""`mlx-embed compare`: its arguments, what it prints and writes, and its status."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlx_embed import cli
from mlx_embed.measure import compare as module
from mlx_embed.measure.compare import DEFAULT_TEXTS
from mlx_embed.measure.report import Report
from tests.mlx_embed.measure.test_report import REPORT, op_row

ROOT = Path(__file__).parents[3]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the run was asked for; it finds REPORT, or what a test puts in its place."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(module, "compare", lambda *arguments: calls.append(arguments) or REPORT)
    return calls


def test_it_prints_the_report_and_writes_it(
    asked: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.json"
    assert cli.main(["compare", "--model", "a-model", "--dtype", "float16", "--json", str(target)]) == 0
    assert asked == [("a-model", DEFAULT_TEXTS, "float16")]
    assert capsys.readouterr().out.splitlines()[-1] == f"Verdict: {REPORT.verdict}"
    assert json.loads(target.read_text())["verdict"] == REPORT.verdict


def test_texts_from_a_file(asked: list[tuple[Any, ...]], tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("\ufeffGrüße\n\n  \nA\u2028second.\n", encoding="utf-8")
    assert cli.main(["compare", "--texts", str(file)]) == 0
    assert asked[0][1] == ["Grüße", "A\u2028second."]


def test_texts_that_are_no_utf8(
    asked: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_bytes(b"a\n\xff\n")
    assert cli.main(["compare", "--texts", str(tmp_path / "texts.txt")]) == 2
    assert "texts.txt:2 is not UTF-8" in capsys.readouterr().err
    assert not asked


def test_what_fails_is_the_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    wrong: Report = replace(REPORT, ops=(op_row(1.0),))
    monkeypatch.setattr(module, "compare", lambda *_: wrong)
    assert cli.main(["compare"]) == 1
    assert f"FAILED: {wrong.failures[0]}" in capsys.readouterr().out


@pytest.mark.parametrize("said", [None, "1"])
def test_float32_is_float32_where_it_is_compared(said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody wants it otherwise; MLX reads it when it first multiplies."""
    monkeypatch.setenv("MLX_ENABLE_TF32", str(said))
    if said is None:
        monkeypatch.delenv("MLX_ENABLE_TF32")
    found: list[str | None] = []
    monkeypatch.setattr(module, "compare", lambda *_: found.append(os.environ.get("MLX_ENABLE_TF32")) or REPORT)
    assert cli.main(["compare"]) == 0
    assert found == [said or "0"]


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "texts.txt"
    empty.write_text("\n\n")
    assert cli.main(["compare", "--texts", str(empty)]) == 2
    assert "at least one text" in capsys.readouterr().err
    assert cli.main(["compare", "--json", str(tmp_path / "no" / "folder.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert cli.main(["compare", "--json", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    some = tmp_path / "some.txt"
    some.write_text("wing")
    assert cli.main(["compare", "--texts", str(some), "--json", str(some)]) == 2
    assert "is read or written already" in capsys.readouterr().err
    assert some.read_text() == "wing"
    assert cli.main(["compare", "--texts", str(tmp_path / "absent.txt")]) == 2
    assert "absent.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "command"), [("compare_mlx_cpu", "compare"), ("convert_weights", "convert"), ("compare_mlx_cpu", None)]
)
def test_the_scripts_are_the_commands(script: str, command: str | None, tmp_path: Path) -> None:
    """Their help is that of the command; their errors and status too."""
    arguments = ["--help"] if command else ["--json", str(tmp_path / "no" / "file.json")]
    run = subprocess.run(
        [sys.executable, f"scripts/{script}.py", *arguments], capture_output=True, text=True, check=False, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if command:
        assert run.returncode == 0
        assert run.stdout.startswith(f"usage: mlx-embed {command}")
    else:
        assert run.returncode == 2
        assert "there is no folder" in run.stderr
