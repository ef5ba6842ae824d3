"""A sequence classifier's head: found by its tensors, saved with the encoder, and what is said of its use."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CheckpointError, UnsupportedModelError
from mlx_embed.checkpoint import Checkpoint, heads, read_checkpoint
from mlx_embed.checkpoint.modules import Dense, LayerNorm
from tests.checkpoints import FAMILIES, RERANKERS, decoder, edit, encoder, read, reranker


def save(folder: Path, tensors: dict[str, mx.array]) -> Checkpoint:
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return read_checkpoint(folder)


@pytest.mark.parametrize("name", RERANKERS)
def test_a_head_and_its_tensors(name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(reranker(name, 3, tmp_path))
    tensors = read(tmp_path)
    assert heads.has_head(checkpoint)
    layers = heads.load_head(checkpoint)
    first, last = layers[0], layers[-1]
    names = RERANKERS[name][2]
    assert np.array_equal(first[1]["linear.weight"], tensors[f"{names[0]}.weight"])
    assert np.array_equal(last[1]["linear.weight"], tensors[f"{names[1]}.weight"])
    assert np.array_equal(last[1]["linear.bias"], tensors[f"{names[1]}.bias"])
    assert [type(layer) for layer, _ in layers] == [Dense, *[LayerNorm] * (name == "modernbert"), Dense]
    assert isinstance(last[0], Dense)
    assert (last[0].out_features, last[0].activation) == (3, "Identity")
    saved = heads.head_arrays(checkpoint, mx.float16)
    assert len(saved) == sum(len(parameters) for _, parameters in layers)
    assert {array.dtype for array in saved.values()} == {mx.float16}
    assert {array.dtype for array in heads.head_arrays(checkpoint, None).values()} == {mx.float32}


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert"])
def test_an_embedding_model_has_none(name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(encoder(name, tmp_path))
    assert not heads.has_head(checkpoint)
    assert heads.head_arrays(checkpoint, None) == {}
    with pytest.raises(CheckpointError, match=r"has no tensor .*\.weight; is it a reranker"):
        heads.load_head(checkpoint)


@pytest.mark.parametrize("name", FAMILIES)
def test_decoders_have_none(name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(decoder(name, tmp_path))
    assert not heads.has_head(checkpoint)
    assert heads.head_arrays(checkpoint, None) == {}
    with pytest.raises(CheckpointError, match=r"has no tensor score\.weight; is it a reranker"):
        heads.load_head(checkpoint)


@pytest.mark.parametrize(
    ("tensor", "array", "message"),
    [
        ("classifier.weight", mx.ones((1, 31)), r"classifier.weight' of .* F32 \(1, 31\), where .* floats \(1, 32\)"),
        ("classifier.weight", mx.ones(()), r"classifier.weight' of .* F32 \(\), where"),
        ("classifier.bias", mx.ones((2,)), r"classifier.bias' of .* F32 \(2,\), where .* floats \(1,\)"),
        ("classifier.weight", mx.ones((1, 32), dtype=mx.int32), "classifier.weight' of .* I32"),
        ("classifier.weight", mx.full((1, 32), float("nan")), "classifier.weight' of .* holds NaN or infinite numbers"),
        ("bert.pooler.dense.bias", mx.full((32,), float("inf")), "pooler.dense.bias' of .* holds NaN or infinite"),
    ],
)
def test_tensors_that_do_not_fit(tensor: str, array: mx.array, message: str, tmp_path: Path) -> None:
    reranker("bert", 1, tmp_path)
    checkpoint = save(tmp_path, read(tmp_path) | {tensor: array})
    with pytest.raises(CheckpointError, match=message):
        heads.load_head(checkpoint)


IDENTITY, TANH = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Tanh"


@pytest.mark.parametrize(
    ("note", "config", "expected"),
    [
        (None, {}, "Sigmoid"),
        ("{}", {}, "Sigmoid"),
        (None, {"sbert_ce_default_activation_function": TANH}, "Tanh"),
        (None, {"sentence_transformers": {"activation_fn": TANH}}, "Tanh"),
        (None, {"sentence_transformers": "4.0"}, "Sigmoid"),
        (
            f'{{"model_type": "CrossEncoder", "activation_fn": "{IDENTITY}"}}',
            {"sentence_transformers": {"activation_fn": TANH}},
            "Identity",
        ),
        (f'{{"activation_fn": "{IDENTITY}"}}', {"sentence_transformers": {"activation_fn": TANH}}, "Tanh"),
        (
            None,
            {"sentence_transformers": {"activation_fn": IDENTITY}, "sbert_ce_default_activation_function": TANH},
            "Identity",
        ),
    ],
)
def test_the_activation(note: str | None, config: dict[str, Any], expected: str, tmp_path: Path) -> None:
    """The newest note wins; without one, it is a probability of a single label, and logits of several."""
    checkpoint = read_checkpoint(reranker("bert", 1, tmp_path, **config))
    if note is not None:
        (tmp_path / "config_sentence_transformers.json").write_text(note)
        (tmp_path / "modules.json").write_text("[]")
    assert heads.activation(checkpoint, 1) == expected
    assert heads.activation(checkpoint, 3) == ("Identity" if expected == "Sigmoid" else expected)


@pytest.mark.parametrize("name", ["os.abort", "torch.nn.Mish", "Tanh", 3])
def test_an_activation_that_is_not_there(name: object, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(reranker("bert", 1, tmp_path, sbert_ce_default_activation_function=name))
    with pytest.raises(UnsupportedModelError, match=f"the activation {name!r}; mlx_embed has torch's GELU"):
        heads.activation(checkpoint, 1)


def test_what_the_head_reads(tmp_path: Path) -> None:
    reranker("modernbert", 1, tmp_path)
    assert heads.pooling(read_checkpoint(tmp_path)) == "cls"
    assert heads.pooling(read_checkpoint(edit(tmp_path, classifier_pooling="mean"))) == "mean"
    with pytest.raises(UnsupportedModelError, match="\"classifier_pooling\": 'max'"):
        heads.pooling(read_checkpoint(edit(tmp_path, classifier_pooling="max")))
    with pytest.raises(UnsupportedModelError, match="\"classifier_activation\": 'relu'"):
        heads.load_head(read_checkpoint(edit(tmp_path, classifier_activation="relu")))
    euro = reranker("eurobert", 1, tmp_path / "euro")
    assert heads.pooling(read_checkpoint(euro)) == "late"
    for stated, meant in (("bos", "cls"), ("mean", "mean"), ("late", "late")):
        assert heads.pooling(read_checkpoint(edit(euro, classifier_pooling=stated))) == meant
    with pytest.raises(UnsupportedModelError, match="\"classifier_pooling\": 'cls'; mlx_embed has bos, mean, late"):
        heads.pooling(read_checkpoint(edit(euro, classifier_pooling="cls")))
    other = reranker("bert", 1, tmp_path / "bert", classifier_pooling="mean")
    assert heads.pooling(read_checkpoint(other)) == "cls", "only ModernBERT means something by it"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": ["q"]}, r"has \"prompts\": \['q'\]"),
        ({"prompts": {"q": 1}}, r"has \"prompts\": \{'q': 1\}"),
        ({"prompts": {"q": "note "}, "default_prompt_name": "r"}, r"names the default prompt 'r', but has .*\['q'\]"),
    ],
)
def test_prompts_that_are_none(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(reranker("bert", 1, tmp_path))
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "CrossEncoder"} | settings))
    with pytest.raises(CheckpointError, match=message):
        heads.prompts(checkpoint)
