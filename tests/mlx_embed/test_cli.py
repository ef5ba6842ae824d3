"""The command line: the commands it finds, how errors and readers that go away end it, and its signs of life."""

import errno
import io
import logging
import os
import subprocess
import sys
import warnings
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

import mlx_embed
from mlx_embed import MLXEmbedError, TruncationWarning, cli

ROOT = Path(__file__).parents[2]
FOLDER = Path(mlx_embed.__file__).parent / "commands"
COMMANDS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The only command there is, `act`; a test says what it does."""
    only = SimpleNamespace(__doc__="Act.\n\nMore.", add=lambda parser: None, run=lambda options: 0)
    monkeypatch.setattr(cli, "find", lambda: {"act": only})
    return only


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mlx-embed {mlx_embed.__version__}\n"


def test_every_file_of_the_folder_is_a_command() -> None:
    assert {"compare", "convert", "env", "tune"} <= set(COMMANDS)
    found = cli.find()
    assert sorted(found) == COMMANDS
    for command in found.values():
        command.add(ArgumentParser())


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    first = (FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()[0].strip('"')
    # Without white space, since long words are broken at their hyphens.
    assert "".join(first.split()) in "".join(capsys.readouterr().out.split())


NEEDED = {"search": ["question", "--index", "nowhere"], "serve": []}
FLOATS = [
    (name, action.option_strings[-1])
    for name, command in cli.find().items()
    for parser in [ArgumentParser()]
    for _ in [command.add(parser)]
    for action in parser._actions
    if action.type is float
]


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize(("name", "option"), FLOATS)
def test_a_float_is_a_number(name: str, option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, *NEEDED[name], option, value]) == 2
    assert f"{option} {value} is not a finite number" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["no-such-command"]])
def test_no_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "usage: mlx-embed" in printed.err


def test_what_a_command_does_not_take_is_said_with_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["search", "how is a batch packed", "--index", "my.index", "--top", "3"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: mlx-embed search ")
    assert said.endswith("mlx-embed search: error: unrecognized arguments: --top 3\n")


@pytest.mark.parametrize("status", [0, 1])
def test_the_status_of_the_command_is_that_of_the_program(command: SimpleNamespace, status: int) -> None:
    command.run = lambda options: status
    assert cli.main(["act"]) == status


def test_without_docstrings(command: SimpleNamespace) -> None:
    command.__doc__ = None
    assert cli.main(["act"]) == 0


@pytest.mark.parametrize("kind", [MLXEmbedError, ValueError, RuntimeError, ImportError, OSError, MemoryError])
def test_an_error_is_a_sentence(
    kind: type[Exception], command: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: Namespace) -> int:
        raise kind("The reason.")

    command.run = run
    assert cli.main(["act"]) == 2
    assert capsys.readouterr() == ("", "mlx-embed: The reason.\n")


def test_an_error_of_the_system_names_the_file_and_no_number(
    command: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.run = lambda options: len((tmp_path / "keys").read_text())
    assert cli.main(["act"]) == 2
    assert capsys.readouterr().err == f"mlx-embed: {tmp_path / 'keys'}: No such file or directory.\n"


def test_a_full_disk_has_a_sentence_too(command: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    def run(options: Namespace) -> int:
        raise OSError(errno.ENOSPC, "Error writing bytes. Detail: [errno 28] No space left on device")

    command.run = run
    assert cli.main(["act"]) == 2
    assert capsys.readouterr().err == "mlx-embed: No space left on device: free some, and run it again.\n"


def test_no_memory_has_a_sentence_too(command: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    def run(options: Namespace) -> int:
        raise MemoryError

    command.run = run
    assert cli.main(["act"]) == 2
    assert "not enough memory" in capsys.readouterr().err


def test_a_warning_is_a_sentence(command: SimpleNamespace) -> None:
    """In another process: pytest catches warnings before they are shown."""
    script = (
        "import warnings; from types import SimpleNamespace; from mlx_embed import cli\n"
        "def run(options): warnings.warn('It is late.'); return 0\n"
        "cli.find = lambda: {'act': SimpleNamespace(__doc__='Act.', add=lambda parser: None, run=run)}\n"
        "cli.main(['act']); warnings.warn('After it.')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    first, *rest = done.stderr.splitlines()
    assert first == "mlx-embed: It is late."
    assert "UserWarning: After it." in rest[0], "others see theirs as ever"


def test_a_warning_names_no_option_of_a_method() -> None:
    with cli.warnings_as_sentences():
        said = warnings.formatwarning(
            TruncationWarning("It was cut.", "long_text does more."), TruncationWarning, "", 1
        )
    assert said == "mlx-embed: It was cut.\n"


def test_it_is_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlx_embed", "--version"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"mlx-embed {mlx_embed.__version__}\n")


def test_a_mistake_of_the_program_is_not_hidden(command: SimpleNamespace) -> None:
    def run(options: Namespace) -> int:
        raise AssertionError("never")

    command.run = run
    with pytest.raises(AssertionError, match="never"):
        cli.main(["act"])


def test_ctrl_c_ends_quietly(command: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    def run(options: Namespace) -> int:
        raise KeyboardInterrupt

    command.run = run
    assert cli.main(["act"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        run = subprocess.run(
            [sys.executable, "-m", "mlx_embed.cli", "env"], stdout=gone, stderr=subprocess.PIPE, text=True, check=False
        )
    assert run.returncode == 141
    assert run.stderr == ""


def test_closed_streams(command: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: Namespace) -> int:
        raise ValueError("Nobody hears this.")

    command.run = run
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["act"]) == 2


@pytest.mark.parametrize("terminal", [True, False])
def test_steps_are_shown_on_a_terminal_alone(
    terminal: bool, command: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("mlx_embed")
    before = logger.level, list(logger.handlers)

    def run(options: Namespace) -> int:
        logger.info("measuring")
        print("result")
        return 0

    command.run = run
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    assert cli.main(["act"]) == 0
    assert stderr.getvalue() == ("... measuring\n" if terminal else "")
    assert capsys.readouterr().out == "result\n"
    assert (logger.level, list(logger.handlers)) == before


def test_who_has_logging_set_up_gets_the_steps_there_alone(
    command: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    command.run = lambda options: logging.getLogger("mlx_embed").info("measuring") or 0
    monkeypatch.setattr(sys, "stderr", Terminal())
    with caplog.at_level(logging.INFO, "mlx_embed"):
        assert cli.main(["act"]) == 0
        assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
    assert caplog.messages == ["measuring"]
