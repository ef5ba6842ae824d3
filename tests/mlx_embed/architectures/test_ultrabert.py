"""UltraBERT as a reranker: one layer behind the first token, or the average."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel
from tests import oracles
from tests.checkpoints import edit, read
from tests.mlx_embed.architectures.cases import make, needs_transformers

PAIRS = [("the wing", "flow of heat"), ("code", "")]


def reranker(folder: Path, pooling: str) -> tuple[Path, np.ndarray, np.ndarray]:
    """The folder, and the weight and the bias of its head."""
    make("ultrabert", folder)
    weight, bias = np.random.default_rng(5).normal(size=(2, 32)), np.array([0.5, -0.5])
    tensors = {f"model.{name}": array.astype(mx.float32) for name, array in read(folder).items()}
    tensors |= {"classifier.weight": mx.array(weight.astype(np.float32)), "classifier.bias": mx.array(bias)}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    names = {"id2label": {"0": "A", "1": "B"}, "label2id": {"A": 0, "B": 1}}
    kind = ["UltrabertForSequenceClassification"]
    edit(folder, architectures=kind, classifier_pooling=pooling, dtype="float32", pad_token_id=0, **names)
    return folder, weight, bias


def test_the_average(tmp_path: Path) -> None:
    folder, weight, bias = reranker(tmp_path / "a", "mean")
    model = EmbeddingModel.from_pretrained(make("ultrabert", tmp_path / "b"), device="cpu")
    pair = model.tokenizer.encode(["the wing [SEP] flow of heat"]).ids[0]
    score = CrossEncoder.from_pretrained(folder, device="cpu").predict(PAIRS[:1], activation="Identity")
    expected = model.encode("the wing [SEP] flow of heat") @ weight.T + bias
    assert len(pair) == 8
    assert np.abs(score - expected).max() <= 1e-5


def test_windows_of_old(tmp_path: Path) -> None:
    """A number for each layer, 0 for the whole text: it is read, and is not what holds without it."""
    old = {"layer_types": None, "sliding_window": None, "attention_windows": [6, 0, 6]}
    config = EmbeddingModel.from_pretrained(edit(make("ultrabert", tmp_path), **old), device="cpu").checkpoint
    assert config.encoder_config.layer_types == ("sliding_attention", "full_attention", "sliding_attention")
    assert config.encoder_config.sliding_window == 6


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_live(pooling: str, tmp_path: Path) -> None:
    needs_transformers("ultrabert")
    sentence_transformers = oracles.sentence_transformers()
    folder, _, _ = reranker(tmp_path, pooling)
    expected = sentence_transformers.CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    assert np.abs(CrossEncoder.from_pretrained(folder, device="cpu").predict(PAIRS) - expected).max() <= 1e-5
