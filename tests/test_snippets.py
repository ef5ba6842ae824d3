"""What README.md and docs show: their Python runs, their commands are understood, what they point at is there.

Clients of the server are in tests/mlx_embed/serve/test_clients.py.
"""

import argparse
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from mlx_embed import cli
from tests import bge_m3, multi_vector, sparse
from tests.checkpoints import generative, reranker
from tests.conftest import DATA, ROOT
from tests.mlx_embed.checkpoint.test_tasks import authors

PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
# Pieces of a program, and processes, which would have to be told of the models below.
LEFT_OUT = {"docs/architecture.md", "docs/jobs.md"}
ADDRESS = "127.0.0.1:8080"
# Tiny ones in the place of repositories that are named.
STAND_INS: dict[str, Callable[[Path], object]] = {
    "intfloat/e5-small-v2": lambda folder: shutil.copytree(DATA / "tiny-bert", folder),
    "cross-encoder/ms-marco-MiniLM-L6-v2": lambda folder: reranker("bert", 1, folder),
    "naver/splade-cocondenser-ensembledistil": lambda folder: sparse.make(folder, "distilbert"),
    "lightonai/GTE-ModernColBERT-v1": lambda folder: multi_vector.make(folder, "sentence-transformers"),
    "Qwen/Qwen3-Reranker-0.6B": lambda folder: generative("qwen3", folder),
    "jinaai/jina-embeddings-v3": authors,
}


def blocks(page: str, language: str) -> list[tuple[str, str]]:
    """The blocks of a language, each with its place."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [(f"{page}:{text.count(chr(10), 0, block.start()) + 1}", block[1]) for block in found]


@contextmanager
def as_far_as_installed() -> Iterator[None]:
    """Another package that is not there ends a block."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("mlx_embed", "custom_kernels"):
            raise


def local(page: str) -> list[tuple[str, str]]:
    """The Python of a page that asks no server."""
    return [(place, code) for place, code in blocks(page, "python") if ADDRESS not in code]


@pytest.mark.parametrize("page", [page for page in PAGES if local(page) and page not in LEFT_OUT])
def test_python(page: str, minilm_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(name: str, **_: Any) -> str:
        if name == "sentence-transformers/all-MiniLM-L6-v2":
            return str(minilm_path)
        folder = tmp_path / name.replace("/", "--")
        if not folder.exists():
            STAND_INS[name](folder)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("The wing stalls.\nA recipe for lentil soup.\n")
    names: dict[str, Any] = {}
    for place, code in local(page):
        if "bge-m3" in code:
            bge_m3.make(Path("bge-m3"))
        with as_far_as_installed():
            if "torch.load" in code:
                import torch

                for name in ("sparse_linear", "colbert_linear"):
                    torch.save({"weight": torch.ones(1, 32), "bias": torch.ones(1)}, f"bge-m3/{name}.pt")
            exec(compile(code, place, "exec"), names)


def commands(page: str) -> list[tuple[str, list[str]]]:
    """The lines of its shell blocks as words, without comments; a backslash joins lines, a pipe parts one."""
    lines = [
        (place, shlex.split(line, comments=True))
        for place, code in blocks(page, "sh")
        for line in code.replace("\\\n", " ").replace(" | ", "\n").splitlines()
    ]
    return [(place, words) for place, words in lines if words]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands(page: str) -> None:
    for place, words in commands(page):
        words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
        program = words[1] if words[0] == "python" else words[0]
        if program == "mlx-embed":
            parser = argparse.ArgumentParser(exit_on_error=False)
            cli.find()[words[1]].add(parser)
            try:
                parser.parse_args(words[2:])
            except (argparse.ArgumentError, SystemExit) as error:
                pytest.fail(f"{place}: {shlex.join(words)}: {error}")
        elif program.startswith("scripts/"):
            assert (ROOT / program).exists(), f"{place}: {program}"


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links spell them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths(page: str) -> None:
    here = ROOT / page
    text = here.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        file = here.parent / target if target else here
        assert file.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(file), f"{page}: {target}#{anchor}"
    for path in re.findall(r"`((?:mlx_embed|custom_kernels|scripts|tests|docs|examples|findings)/[\w./-]*)`", text):
        assert (ROOT / path).exists() or "/X." in path, f"{page}: {path}"
