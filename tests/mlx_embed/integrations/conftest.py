"""A checkpoint with prompts, and sentence-transformers' own model of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import oracles


@pytest.fixture
def prompted(checkpoint: Path) -> Path:
    """A checkpoint whose queries and documents get prompts, so that mistaking one for the other shows."""
    return with_prompts(checkpoint)


def with_prompts(folder: Path) -> Path:
    path = folder / "config_sentence_transformers.json"
    prompts = {"query": "index: ", "document": "note of the "}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prompts": prompts}))
    return folder


def theirs(folder: Path) -> Any:
    """sentence-transformers' own model of a folder."""
    sentence_transformers = oracles.sentence_transformers()
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")
