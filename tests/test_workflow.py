"""The workflow runs tests that exist: a word after -k that selects none would be seen on a Mac alone."""

import re
import shlex

import pytest

from tests.conftest import ROOT

WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
# What follows pytest, up to a pipe or the end of the line.
COMMANDS = re.findall(r"-m pytest ([^|\n]+)", WORKFLOW)


def names(place: str) -> set[str]:
    """What pytest compares with -k of the tests in a file or folder, but for the parameters: files and functions."""
    path = ROOT / place
    assert path.exists(), place
    found: set[str] = set()
    for file in [path] if path.is_file() else path.rglob("test_*.py"):
        functions = re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.M)
        found |= {f"{file.relative_to(ROOT / 'tests')}::{function}" for function in functions}
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_each_word_selects_a_test(command: str) -> None:
    words = shlex.split(command)
    places = [word for word in words if word.startswith("tests")]
    assert places
    found = set().union(*map(names, places))
    wanted = words[words.index("-k") + 1].split(" or ") if "-k" in words else [""]
    assert [word for word in wanted if not any(word in name for name in found)] == []


def test_the_commands_are_read() -> None:
    assert sum("-k" in command for command in COMMANDS) >= 3
