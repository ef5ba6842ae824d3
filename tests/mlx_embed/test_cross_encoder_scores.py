"""CrossEncoder's settings against sentence-transformers: golden scores, and live; and rank."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import texts
from tests.checkpoints import read
from tests.conftest import DATA
from tests.mlx_embed.test_cross_encoder import PAIRS, TOLERANCE, load, make, oracle

QUERY = "the wing flow"
DOCUMENTS = [document for _, document in PAIRS]
NAMES = ["input_ids", "attention_mask"]
# By name, the architecture and its labels, what config.json and tokenizer_config.json say, and predict's options.
SETTINGS: dict[str, tuple[str, int, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]] = {
    "plain": ("bert", 1, {}, {}, {}),
    "softmax of three labels": ("bert", 3, {}, {}, {"apply_softmax": True}),
    "softmax of two labels": ("modernbert", 2, {}, {}, {"apply_softmax": True}),
    "softmax of one label": ("bert", 1, {}, {}, {"apply_softmax": True}),
    "mean": ("modernbert", 1, {"classifier_pooling": "mean"}, {}, {}),
    "mean, which RoBERTa does not know": ("roberta", 1, {"classifier_pooling": "mean"}, {}, {}),
    "identity": ("bert", 1, {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, {}, {}),
    "tanh": ("bert", 1, {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, {}, {}),
    "as of old": ("bert", 1, {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, {}, {}),
    "fast": ("bert", 1, {}, {"tokenizer_class": "BertTokenizerFast"}, {}),
    "any class": ("bert", 1, {}, {"tokenizer_class": "PreTrainedTokenizerFast"}, {}),
    "no class": ("bert", 1, {}, {"tokenizer_class": None}, {}),
    "names": ("bert", 1, {}, {"model_input_names": NAMES}, {}),
    "any class with names": (
        "bert",
        1,
        {},
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": [*NAMES, "token_type_ids"]},
        {},
    ),
}


def made(name: str, folder: Path) -> Path:
    architecture, labels, config, tokenizer, _ = SETTINGS[name]
    make(architecture, labels, folder, **config)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | dict(tokenizer)
    if tokenizer:
        settings.pop("backend", None)
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    return folder


def golden(name: str) -> np.ndarray:
    with np.load(DATA / "settings.npz") as file:
        return file[f"scores: {name}"]


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    limit = 5 * TOLERANCE * max(1, np.abs(expected).max())
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= limit)


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("name", SETTINGS)
def test_golden(name: str, engine: str, tmp_path: Path) -> None:
    assert close(load(made(name, tmp_path), engine=engine).predict(PAIRS, **SETTINGS[name][4]), golden(name))


@pytest.mark.parametrize("name", SETTINGS)
def test_live(name: str, tmp_path: Path) -> None:
    expected = oracle(made(name, tmp_path)).predict(PAIRS, **SETTINGS[name][4])
    assert close(load(tmp_path).predict(PAIRS, **SETTINGS[name][4]), expected)


def test_each_setting_shows_in_the_scores() -> None:
    """Else it would prove nothing."""
    plain = golden("plain")
    for name in ("identity", "tanh", "any class", "names"):
        assert not close(golden(name), plain), name
    assert golden("softmax of three labels").sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_rank(tmp_path: Path) -> None:
    """Best first, equal ones in the order given, by the golden order and by predict's scores."""
    model = load(made("plain", tmp_path))
    documents = [*DOCUMENTS, DOCUMENTS[0], DOCUMENTS[3]]
    scores = model.predict([(QUERY, document) for document in documents])
    found = model.rank(QUERY, documents)
    order = [entry["corpus_id"] for entry in found]
    assert sorted(order) == list(range(len(documents)))
    assert order == sorted(range(len(documents)), key=lambda i: (-scores[i], i))
    assert [entry["score"] for entry in found] == [float(scores[i]) for i in order]
    assert all(set(entry) == {"corpus_id", "score"} for entry in found)
    assert [i for i in order if i < len(DOCUMENTS)] == golden("order").tolist()


@pytest.mark.parametrize("top_k", [1, 3, len(DOCUMENTS), 100])
def test_rank_of_a_few(top_k: int, tmp_path: Path) -> None:
    model = load(made("plain", tmp_path))
    found = model.rank(QUERY, DOCUMENTS, top_k=top_k, return_documents=True)
    assert [entry["corpus_id"] for entry in found] == golden("order")[:top_k].tolist()
    assert [entry["text"] for entry in found] == [DOCUMENTS[i] for i in golden("order")[:top_k]]


def test_softmax_of_large_logits(tmp_path: Path) -> None:
    """Whose exponentials no float32 holds."""
    tensors = read(make("bert", 3, tmp_path))
    tensors["classifier.weight"] *= 1e4
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors)
    model = load(tmp_path)
    assert np.abs(model.predict(PAIRS)).max() > 1000
    assert model.predict(PAIRS, apply_softmax=True).sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_more_pairs_than_are_read_at_once(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "FIRST_WINDOW", 2)
    monkeypatch.setattr(texts, "WINDOW", 3)
    assert close(load(made("plain", tmp_path), engine=engine).predict(PAIRS), golden("plain"))
