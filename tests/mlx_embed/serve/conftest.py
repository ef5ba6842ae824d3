"""Tiny models to serve: an embedding model with prompts, and a reranker."""

import json
import random
import shutil
from pathlib import Path

import pytest

from mlx_embed import CrossEncoder, EmbeddingModel
from tests.checkpoints import reranker as make_reranker
from tests.conftest import DATA

WORDS = ["the", "wing", "flow", "of", "heat", "code", "qux", "42", "!", "naïve", "日本", "speed"]


def random_texts(count: int, longest: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(count)]


def with_prompts(folder: Path, *, include_prompt: bool = True) -> Path:
    """A copy of the tiny BERT that has prompts, which are pooled or not."""
    shutil.copytree(DATA / "tiny-bert", folder)
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prompts": {"query": "heat of ", "passage": "the "}}))
    path = folder / "1_Pooling" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"include_prompt": include_prompt}))
    return folder


@pytest.fixture(scope="session")
def embedder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompts(tmp_path_factory.mktemp("served") / "tiny-bert")


@pytest.fixture(scope="session")
def reranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reranker("bert", 1, tmp_path_factory.mktemp("rerankers") / "tiny-reranker")


@pytest.fixture(scope="session")
def encoder(embedder_folder: Path) -> EmbeddingModel:
    """What the served embedding model is compared with."""
    return EmbeddingModel.from_pretrained(embedder_folder, device="cpu")


@pytest.fixture(scope="session")
def cross_encoder(reranker_folder: Path) -> CrossEncoder:
    return CrossEncoder.from_pretrained(reranker_folder, device="cpu")
