"""The names of tensors: prefixes that are stripped, and names that are missing or unknown, of each architecture."""

import re
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_embed import CheckpointError, EmbeddingModel
from mlx_embed.architectures import ARCHITECTURES
from tests.checkpoints import read, rename
from tests.mlx_embed.architectures.cases import BASES, DECODERS, TOLERANCE, difference, encode, golden, make


@pytest.mark.parametrize("prefix", ["model.", "0.auto_model."])
@pytest.mark.parametrize("name", BASES)
def test_prefixes_are_stripped(name: str, prefix: str, tmp_path: Path) -> None:
    texts, expected = golden(name)
    own = "".join(ARCHITECTURES[name].PREFIXES[:1]) if prefix == "0.auto_model." else ""
    found = encode(rename(make(name, tmp_path), ("^", prefix + own)), texts)
    assert difference(found, expected) <= TOLERANCE


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "t5", "ultrabert"])
def test_prefixes_of_models_with_other_heads(name: str, tmp_path: Path) -> None:
    """As LlamaForQuestionAnswering, T5ForTokenClassification and all of UltraBERT's are saved by transformers."""
    texts, expected = golden(name)
    prefix = "ultrabert." if name == "ultrabert" else "transformer."
    for whole in (prefix, f"model.{prefix}"):
        folder = rename(make(name, tmp_path / whole), ("^", whole))
        tensors = read(folder) | {"qa_outputs.weight": mx.zeros((2, 32)), "classifier.bias": mx.zeros(2)}
        mx.save_safetensors(str(folder / "model.safetensors"), tensors)
        assert difference(encode(folder, texts), expected) <= TOLERANCE


def test_layers_below_another_name(tmp_path: Path) -> None:
    folder = rename(make("qwen3", tmp_path), ("^", "backbone."))
    message = r"weights hold 0\. Their names, such as 'backbone\.layers\.0\..*', are not those of this model_type"
    with pytest.raises(CheckpointError, match=message):
        EmbeddingModel.from_pretrained(folder, device="cpu")


def load(folder: Path, tensors: dict[str, mx.array]) -> EmbeddingModel:
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return EmbeddingModel.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("name", BASES)
def test_a_missing_tensor_is_named_as_the_checkpoint_names_it(name: str, tmp_path: Path) -> None:
    tensors = read(make(name, tmp_path))
    # A decoder's that are there once have the names that they have in the checkpoint.
    once = [key for key in tensors if name in DECODERS and not re.search(r"\.\d+\.", key)]
    for lost in [*once, *(key for key in tensors if ".1." in key)]:
        with pytest.raises(CheckpointError, match=rf"lacks {re.escape(lost)} in model\.safetensors"):
            load(tmp_path, {key: value for key, value in tensors.items() if key != lost})


@pytest.mark.parametrize("name", BASES)
def test_a_tensor_that_the_architecture_does_not_have(name: str, tmp_path: Path) -> None:
    tensors = read(make(name, tmp_path))
    layer = next(key for key in tensors if ".0." in key).partition(".0.")[0]
    unknown = f"{layer}.0.unheard_of.bias"
    with pytest.raises(CheckpointError, match=f"has tensor '{unknown}' of .*, which the architecture does not have"):
        load(tmp_path, tensors | {unknown: mx.zeros(64)})


@pytest.mark.parametrize("name", BASES)
def test_a_tensor_of_another_shape(name: str, tmp_path: Path) -> None:
    tensors = read(make(name, tmp_path))
    wrong = next(key for key in tensors if "norm" in key.lower() and key.endswith("weight"))
    with pytest.raises(CheckpointError, match=f"tensor '{wrong}' of .* has shape"):
        load(tmp_path, tensors | {wrong: mx.zeros(31)})
