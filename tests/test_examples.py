"""The examples run, offline, on a tiny checkpoint."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import reranker
from tests.conftest import DATA, ROOT

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
SAYS = {
    "embed.py": "3 vectors of 32 dimensions\nnearest: ",
    "rerank.py": "0.",
    "long_documents.py": " chunks of up to 64 tokens\nsimilarity to its beginning: ",
    "convert_weights.py": "lowest cosine to the original: 1.0",
    "ask_a_folder.py": "6 indexed, 0 changed, 0 moved, 0 removed, 0 unchanged, 0 failed",
    "search.py": "music ['Article ",
}


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    environment = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, tmp_path: Path) -> None:
    model = str(DATA / "tiny-bert")
    if name == "rerank.py":
        model = str(reranker("bert", 1, tmp_path / "reranker"))
    more = [str(tmp_path / "converted")] if name == "convert_weights.py" else []
    assert SAYS[name] in run(name, model, *more)


def test_what_has_to_be_named_is_said() -> None:
    command = [sys.executable, str(ROOT / "examples" / "convert_weights.py"), "model"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert done.stderr == f"usage: python {command[1]} MODEL FOLDER\n"
