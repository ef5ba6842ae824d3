"""Tensors to parameters: names and layouts that must load, and tensors that must not."""

import json
import re
import resource
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CheckpointError, CrossEncoder, EmbeddingModel, convert
from tests.checkpoints import reranker
from tests.mlx_embed.architectures.cases import TOLERANCE, oracle
from tests.mlx_embed.checkpoint.tensors import (
    ONES,
    QUERY,
    TEXTS,
    Tensors,
    change,
    encode,
    header_of,
    prefixed,
    read,
    replaced,
    without,
    write,
)


def old_norms(tensors: Tensors) -> Tensors:
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {re.sub("|".join(old), lambda match: old[match[0]], name): x for name, x in tensors.items()}
    assert renamed.keys() != tensors.keys()
    return renamed


def with_heads(tensors: Tensors) -> Tensors:
    unused = {
        "encoder.layer.0.attention.self.rotary_emb.inv_freq": np.ones(4, np.float32),
        "embeddings.position_ids": np.arange(64, dtype=np.int64)[None],
        "pooler.dense.weight": np.full((32, 32), np.nan, np.float32),
        "cls.predictions.transform.LayerNorm.gamma": np.ones(7, np.float32),
        "classifier.weight": np.ones((3, 32), np.float32),
    }
    return unused | {name: x for name, x in tensors.items() if "pooler" not in name}


LAYOUTS = {
    "bert.": prefixed("bert."),
    "model.": prefixed("model."),
    "0.auto_model.": prefixed("0.auto_model."),
    "0.auto_model.bert.": prefixed("0.auto_model.bert."),
    "gamma and beta": old_norms,
    "heads": with_heads,
    "prefixed heads": lambda tensors: prefixed("bert.")(with_heads(tensors)),
    "backwards": lambda tensors: dict(reversed(tensors.items())),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_give_the_same_vectors(layout: str, checkpoint: Path) -> None:
    expected = encode(checkpoint)
    assert np.array_equal(encode(change(checkpoint, LAYOUTS[layout])), expected)


HEADS: dict[str, np.ndarray] = {
    "qa_outputs.weight": ONES,
    "classifier.weight": ONES,
    "linear.weight": ONES,
    "cls.predictions.bias": ONES,
    "lm_head.weight": ONES,
    "encoder.layer.3.output.dense.bias": ONES,
}


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("head", HEADS)
def test_what_is_passed_over(head: str, prefix: str, checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line says it. The layers that config.json cuts off are no part of the model either."""
    expected = encode(checkpoint)
    change(checkpoint, lambda tensors: prefixed(prefix)(tensors) | {head: np.full((3, 5), np.nan, np.float32)})
    with caplog.at_level("INFO", logger="mlx_embed"):
        assert np.array_equal(encode(checkpoint), expected)
    lines = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert lines == [f"{checkpoint} has {head}, for which the encoder has no use: passed over."]


def test_layers_that_are_cut_off(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with caplog.at_level("INFO", logger="mlx_embed"):
        found = encode(checkpoint)
    assert ["and 13 more, for which" in record.getMessage() for record in caplog.records].count(True) == 1
    assert np.abs(found - oracle(checkpoint).encode(TEXTS)).max() <= TOLERANCE


def test_a_rerankers_head_is_of_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="mlx_embed"):
        CrossEncoder.from_pretrained(reranker("bert", 1, tmp_path), device="cpu")
        CrossEncoder.from_pretrained(reranker("roberta", 1, tmp_path / "b"), device="cpu")
    assert not [record for record in caplog.records if "passed over" in record.getMessage()]


@pytest.mark.parametrize("given", ["mlx", "pt", None])
def test_names_count_and_not_the_format_that_metadata_states(
    given: str | None, checkpoint: Path, tmp_path: Path
) -> None:
    """Hugging Face's names in a file that calls itself MLX's, and this package's in one that does not."""
    expected = encode(checkpoint)
    convert(checkpoint, tmp_path / "converted")
    for folder in (checkpoint, tmp_path / "converted"):
        tensors = read(folder)
        metadata = {} if given is None else {"__metadata__": {"format": given}}
        write(folder / "model.safetensors", tensors, metadata | header_of(tensors))
        assert np.array_equal(encode(folder), expected)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("embeddings.LayerNorm.bias"), r"lacks embeddings\.LayerNorm\.bias in model\.safetensors"),
        (without(QUERY), f"lacks {re.escape(QUERY)} in model.safetensors"),
        (without("encoder.layer.2.output.dense.bias"), "lacks encoder.layer.2.output.dense.bias in"),
        (lambda tensors: {"x": ONES}, "asks for 3 layers, but the weights hold 0"),
        (lambda tensors: tensors | {"encoder.layer.2.x": ONES}, r"has tensor 'encoder.layer.2.x' of .*model.safetens"),
        (
            lambda tensors: tensors | {f"embeddings.{i}": ONES for i in range(9)},
            "and 6 more, which the architecture does not",
        ),
        (lambda tensors: tensors | prefixed("bert.")(tensors), "are both the encoder's 'embeddings"),
        (
            replaced("embeddings.word_embeddings.weight", ONES),
            r"tensor 'embeddings.word_embeddings.weight' of .*model.safetensors has shape \(32, 32\), .* \(120, 32\)",
        ),
        (replaced(QUERY, ONES[:31]), rf"tensor '{re.escape(QUERY)}' of .* has shape \(31, 32\), .* \(32, 32\)"),
        (replaced(QUERY, ONES[0, 0]), rf"tensor '{re.escape(QUERY)}' of .* has shape \(\), .* \(32, 32\)"),
        (replaced("embeddings.LayerNorm.bias", ONES[0, 0]), r"LayerNorm.bias' of .* has shape \(\), .* \(32,\)"),
        (replaced(QUERY, ONES.astype(np.int32)), rf"tensor '{re.escape(QUERY)}' of .* has dtype I32"),
    ],
)
def test_tensors_that_do_not_fit(edit: Callable[[Tensors], Tensors], message: str, checkpoint: Path) -> None:
    change(checkpoint, edit)
    with pytest.raises(CheckpointError, match=message):
        encode(checkpoint)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", [QUERY, QUERY.replace("query", "value"), "embeddings.word_embeddings.weight", "embeddings.LayerNorm.bias"]
)
def test_weights_that_are_not_finite(name: str, value: float, checkpoint: Path) -> None:
    broken = read(checkpoint)[name].copy()
    broken.reshape(-1)[-1] = value
    change(checkpoint, replaced(name, broken))
    with pytest.raises(CheckpointError, match=rf"tensor '{re.escape(name)}' of .*model\.safetensors holds NaN or inf"):
        encode(checkpoint)


def test_weights_that_half_precision_cannot_hold(checkpoint: Path) -> None:
    change(checkpoint, replaced(QUERY, 1e5 * ONES))
    assert np.isfinite(encode(checkpoint)).all()
    with pytest.raises(CheckpointError, match=f"'{re.escape(QUERY)}' of .* in float16; .*, or use float32"):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu", dtype="float16", engine="reference")


def test_weights_whose_sum_half_precision_cannot_hold(checkpoint: Path) -> None:
    change(checkpoint, replaced("embeddings.LayerNorm.bias", np.full(32, 60_000, np.float32)))
    model = EmbeddingModel.from_pretrained(checkpoint, device="cpu", dtype="float16", engine="reference")
    assert model.engine.encoder.embeddings.norm.bias.sum().item() == np.inf


def test_quantized_weights_that_are_not_finite(checkpoint: Path, tmp_path: Path) -> None:
    """The integers are not looked at, their scales are."""
    convert(checkpoint, tmp_path / "b", quantize=8, group_size=32)
    path = tmp_path / "b/model.safetensors"
    tensors = {name: mx.array(np.array(array)) for name, array in mx.load(str(path)).items()}
    name = "layers.0.up.scales"
    assert tensors["layers.0.up.weight"].dtype == mx.uint32
    mx.save_safetensors(str(path), tensors | {name: tensors[name] * mx.inf})
    with pytest.raises(CheckpointError, match=f"tensor '{name}' of .* holds NaN"):
        encode(tmp_path / "b")


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"])
@pytest.mark.parametrize("size", [10**9, 10**7 - 4 * 7, 0])
def test_absurd_sizes_allocate_nothing(key: str, size: int, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {key: size}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError):
        encode(checkpoint)
    # In KiB on Linux and in bytes on macOS, where the bound is the stricter.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16


@pytest.mark.parametrize(
    "quantization",
    [
        True,
        8,
        {},
        {"bits": 8},
        {"bits": 7, "group_size": 32},
        {"bits": 8, "group_size": 16},
        {"bits": 8.0, "group_size": 32},
        {"bits": [8]},
        {"bits": 8, "group_size": 32, "mode": "mxfp4"},
        {"bits": 8, "group_size": 32, "mode": ["affine"]},
        {"bits": 8, "group_size": 32, "mode": "mxfp8", "quantize_input": True},
    ],
)
def test_a_quantization_that_is_not_read(quantization: object, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"quantization": quantization}))
    with pytest.raises(CheckpointError, match=r'config.json has "quantization": .*; mlx_embed reads affine 2, 3,'):
        encode(checkpoint)


def test_weights_said_to_be_quantized_that_are_not(checkpoint: Path) -> None:
    """Which mlx-lm and mlx-embeddings load as what they are: a layer is quantized where it has scales."""
    expected = encode(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"quantization": {"bits": 8, "group_size": 32}}))
    assert np.array_equal(encode(checkpoint), expected)
