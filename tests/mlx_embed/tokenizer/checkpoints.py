"""Checkpoints as a tokenizer is made of them, and the tokenizers library's own."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from mlx_embed.checkpoint import Checkpoint, read_checkpoint
from mlx_embed.ids import Ids
from tests.conftest import DATA

cuts_as_ever = pytest.mark.skipif(
    tokenizers.__version__ in ("0.23.1", "0.23.2"),
    reason="findings/tokenizers-early-exit-cuts-the-other-text.sh: these releases cut pairs otherwise",
)


def read(name: str = "tiny-bert", tokenizer: Mapping[str, Any] | None = None) -> Checkpoint:
    """A checkpoint of tests/data, with other keys in tokenizer_config.json."""
    found = read_checkpoint(DATA / name)
    return replace(found, tokenizer_config={**found.tokenizer_config, **(tokenizer or {})})


def lists(made: tuple[Ids, Ids]) -> list[list[list[int]]]:
    """The ids and types of pairs."""
    return [rows.tolist() for rows in made]


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
