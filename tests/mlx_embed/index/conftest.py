"""A tiny model, and indexes of texts whose vectors are made up."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.index import Index
from tests.conftest import DATA

WORDS = ("wing", "stall", "heat", "soup", "flow", "layer", "shock", "lentil", "plate", "nose", "cone", "drag", "jet")
DIMENSION = 32
ROW_DTYPES = ("float32", "float16", "int8")


@pytest.fixture(scope="session")
def model() -> EmbeddingModel:
    return EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")


@pytest.fixture
def index(model: EmbeddingModel, tmp_path: Path) -> Iterator[Index]:
    with Index.create(tmp_path / "index", model) as made:
        yield made


def texts(count: int, seed: int = 0) -> list[str]:
    return list(_texts(count, seed))


@cache
def _texts(count: int, seed: int) -> tuple[str, ...]:
    dice = np.random.default_rng(seed)
    return tuple(" ".join(dice.choice(WORDS, dice.integers(1, 9))) for _ in range(count))


def vectors(count: int, seed: int = 0) -> np.ndarray:
    """Of length 1."""
    found = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def names(count: int) -> list[str]:
    return [f"t{i:05d}" for i in range(count)]


def fill(index: Index, count: int, seed: int = 0) -> None:
    metadata: list[dict[str, Any]] = [{"year": 2000 + i % 20, "lang": "en" if i % 3 else "de"} for i in range(count)]
    index.add(names(count), texts(count, seed), metadata, vectors=vectors(count, seed))


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """End what takes longer by an error."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"It took more than {seconds:g} s.")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
