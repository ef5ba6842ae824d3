"""Whether tokens see what comes after them, as config.json says it: right, or refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import CheckpointError, EmbeddingModel, UnsupportedModelError
from mlx_embed.architectures.direction import KEYS
from tests.checkpoints import edit
from tests.conftest import DATA
from tests.mlx_embed.architectures.cases import BASES, TOLERANCE, WAYS, make

with np.load(DATA / "odd/direction.npz") as _file:
    _META = json.loads(str(_file["meta"]))
    ROWS = [(row["source"], row["config"], _file[str(i)]) for i, row in enumerate(_META["rows"])]
TEXTS = _META["texts"]


def bare(source: str, config: dict[str, Any], folder: Path) -> Path:
    """A checkpoint of tests/data, mean pooled, with these keys in its config.json."""
    shutil.copytree(DATA / source, folder)
    tokens = DATA / ("tiny-mpnet" if source.endswith("roberta") else "tiny-bert")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / file).is_file():
            shutil.copy(tokens / file, folder)
    for file in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / file).unlink(missing_ok=True)
    return edit(folder, **config, architectures=None)


def refused(source: str, config: dict[str, Any]) -> bool:
    """Whether transformers passes over a key, in all batches or in some."""
    if source in ("decoders/qwen3", "decoders/mistral"):
        return "use_bidirectional_attention" in config
    if source in ("tiny-bert", "encoders/roberta"):
        return config == {"is_causal": True}
    return not source.startswith("decoders") and bool(config)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", range(len(ROWS)), ids=[f"{source}, {config}" for source, config, _ in ROWS])
def test_direction(row: int, way: str, tmp_path: Path) -> None:
    source, config, expected = ROWS[row]
    folder = bare(source, config, tmp_path / "model")
    if refused(source, config):
        with pytest.raises(UnsupportedModelError, match=rf'"{next(iter(config))}": true, but for model_type'):
            EmbeddingModel.from_pretrained(folder, device="cpu", **WAYS[way])
        return
    model = EmbeddingModel.from_pretrained(folder, device="cpu", **WAYS[way])
    for batch_tokens in (1, 4096):
        assert np.abs(model.encode(TEXTS, batch_tokens=batch_tokens) - expected).max() <= TOLERANCE


def test_the_rows_tell_the_directions_apart() -> None:
    """Else a key that is ignored would pass."""
    bert = {json.dumps(config): vectors for source, config, vectors in ROWS if source == "tiny-bert"}
    causal, both = bert['{"is_decoder": true}'], bert["{}"]
    assert np.abs(causal - both).max() > 100 * TOLERANCE


@pytest.mark.parametrize("value", ["false", 0, [True]])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", BASES)
def test_neither_true_nor_false(name: str, key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f'"{key}": .*, where true or false is needed'):
        EmbeddingModel.from_pretrained(edit(make(name, tmp_path), **{key: value}), device="cpu")


def test_null_is_not_false(checkpoint: Path) -> None:
    """transformers takes it for false, which nobody who writes null need mean; absent is true there."""
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"is_causal": None}))
    with pytest.raises(CheckpointError, match='"is_causal": None'):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("bert", {"is_decoder": True, "use_bidirectional_attention": True}),
        ("bert", {"is_decoder": True, "add_cross_attention": True}),
        ("bert", {"use_bidirectional_attention": False}),
        ("distilbert", {"causal": True}),
        ("mpnet", {"use_bidirectional": False}),
        ("modernbert", {"bidirectional": False}),
        ("mistral", {"causal": False}),
        ("qwen3", {"use_bidirectional": True}),
        ("gemma3_text", {"use_bidirectional_attention": False, "causal": False}),
    ],
)
def test_a_key_that_transformers_does_not_read(name: str, config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=list(config)[-1]):
        EmbeddingModel.from_pretrained(edit(make(name, tmp_path), **config), device="cpu")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("bert", {"is_causal": False, "bidirectional": True, "causal": False, "is_decoder": False}),
        ("modernbert", {"use_bidirectional_attention": True, "is_causal": False}),
        ("qwen3", {"is_causal": False, "use_bidirectional_attention": True}),
        ("qwen3", {"is_causal": False, "is_decoder": True}),
    ],
)
def test_keys_that_agree(name: str, config: dict[str, Any], tmp_path: Path) -> None:
    EmbeddingModel.from_pretrained(edit(make(name, tmp_path), **config), device="cpu")
