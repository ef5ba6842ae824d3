"""Checkpoints as a tokenizer is made of them, and the tokenizers library's own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers

from mlx_embed.checkpoint import Checkpoint, read_checkpoint
from tests.conftest import DATA


def read(name: str = "tiny-bert", **changes: Any) -> Checkpoint:
    return replace(read_checkpoint(DATA / name), **changes)


def library(name: str) -> tokenizers.Tokenizer:
    found = tokenizers.Tokenizer.from_file(str(DATA / name / "tokenizer.json"))
    found.no_padding()
    found.no_truncation()
    return found


def edit(folder: Path, **changes: Any) -> Checkpoint:
    """The checkpoint with other keys in tokenizer.json."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return read_checkpoint(folder)
