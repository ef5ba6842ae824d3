"""The architectures beside BERT and MPNet against transformers: golden vectors, other layouts, live, bad config."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CheckpointError, EmbeddingModel, UnsupportedModelError, convert
from mlx_embed.architectures import ARCHITECTURES
from mlx_embed.architectures.gte import Config as GteConfig
from mlx_embed.architectures.ops import Rope
from tests.conftest import DATA

TOLERANCE = 1e-5
ENCODERS = ["roberta", "distilbert", "modernbert", "nomic_bert", "gte"]
LIVE = ["roberta", "xlm-roberta", "camembert", "distilbert", "modernbert", "nomic_bert", "gte"]


def complete(name: str, folder: Path) -> Path:
    """A copy of tests/data/encoders/<name>, with a tokenizer; the RoBERTas' has <pad> as 1."""
    shutil.copytree(DATA / "encoders" / name, folder, dirs_exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / ("tiny-mpnet" if name == "roberta" else "tiny-bert") / file, folder)
    return folder


def oracle(folder: Path) -> Any:
    """A bare transformers checkpoint, mean pooled, in float32."""
    pytest.importorskip("sentence_transformers", reason="PyTorch oracles are not installed")
    import torch
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


def golden(name: str) -> tuple[list[str], np.ndarray]:
    with np.load(DATA / "encoders.npz") as file:
        return file["texts"].tolist(), file[name]


def edit(folder: Path, **changes: Any) -> Path:
    """Change keys of config.json; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def read(folder: Path) -> dict[str, mx.array]:
    """The tensors of a folder, in memory, so that their file can be written over."""
    return {name: mx.array(np.array(array)) for name, array in mx.load(str(folder / "model.safetensors")).items()}


def rename(folder: Path, *patterns: tuple[str, str], join: tuple[str, tuple[str, ...]] | None = None) -> Path:
    """Rename the tensors; `join` stacks those whose names differ in a part, under the first name given."""
    tensors = {}
    for name, array in read(folder).items():
        for old, new in patterns:
            name = re.sub(old, new, name)
        tensors[name] = array
    if join is not None:
        whole, parts = join
        for name in [name for name in tensors if parts[0] in name]:
            stacked = [tensors.pop(name.replace(parts[0], part)) for part in parts]
            tensors[name.replace(parts[0], whole)] = mx.concatenate(stacked)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return folder


def encode(folder: Path, texts: list[str], **options: Any) -> np.ndarray:
    return EmbeddingModel.from_pretrained(folder, device="cpu", **options).encode(texts, normalize_embeddings=True)


@pytest.mark.parametrize(
    "options",
    [{}, {"engine": "reference"}, {"engine": "graph"}],
    ids=["native", "reference", "graph"],
)
@pytest.mark.parametrize("name", ENCODERS)
def test_golden_vectors(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    texts, expected = golden(name)
    found = encode(complete(name, tmp_path), texts, dtype="float32", **options)
    assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.parametrize("name", ENCODERS)
def test_half_precision(name: str, tmp_path: Path) -> None:
    texts, expected = golden(name)
    found = encode(complete(name, tmp_path), texts, dtype="float16")
    assert (found * expected).sum(axis=1).min() >= 0.9999


@pytest.mark.parametrize("name", ENCODERS)
def test_batched_equals_single(name: str, tmp_path: Path) -> None:
    texts, _ = golden(name)
    model = EmbeddingModel.from_pretrained(complete(name, tmp_path), device="cpu")
    batched = model.encode(texts)
    single = np.stack([model.encode(text) for text in texts])
    assert np.abs(batched - single).max() <= TOLERANCE * np.abs(single).max()


@pytest.mark.parametrize("name", ENCODERS)
def test_conversion_keeps_the_vectors(name: str, tmp_path: Path) -> None:
    texts, expected = golden(name)
    convert(complete(name, tmp_path / "a"), tmp_path / "b")
    assert np.abs(encode(tmp_path / "b", texts) - expected).max() <= TOLERANCE
    convert(tmp_path / "a", tmp_path / "c", quantize=8, group_size=32)
    assert (encode(tmp_path / "c", texts) * expected).sum(axis=1).min() >= 0.999


@pytest.mark.parametrize("model_type", ["xlm-roberta", "camembert"])
def test_the_robertas_are_one_architecture(model_type: str, tmp_path: Path) -> None:
    texts, expected = golden("roberta")
    found = encode(edit(complete("roberta", tmp_path), model_type=model_type), texts)
    assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.parametrize("prefix", ["model.", "0.auto_model."])
@pytest.mark.parametrize("name", ENCODERS)
def test_prefixes_are_stripped(name: str, prefix: str, tmp_path: Path) -> None:
    texts, expected = golden(name)
    own = ARCHITECTURES[name].PREFIXES[0] if prefix == "0.auto_model." else ""
    found = encode(rename(complete(name, tmp_path), ("^", prefix + own)), texts)
    assert np.abs(found - expected).max() <= TOLERANCE


def test_modernbert_config_of_before_transformers_5(tmp_path: Path) -> None:
    texts, expected = golden("modernbert")
    complete("modernbert", tmp_path)
    edit(tmp_path, layer_types=None, rope_parameters=None, global_attn_every_n_layers=3)
    assert np.abs(encode(tmp_path, texts) - expected).max() <= TOLERANCE
    edit(tmp_path, global_rope_theta=1234.0)
    assert np.abs(encode(tmp_path, texts) - expected).max() > 100 * TOLERANCE


def test_modernbert_sees_only_the_neighbourhood_in_local_layers(tmp_path: Path) -> None:
    texts, expected = golden("modernbert")
    edit(complete("modernbert", tmp_path), local_attention=18)
    assert np.abs(encode(tmp_path, texts) - expected).max() > 10 * TOLERANCE


def test_nomic_bert_as_its_authors_wrote_it(tmp_path: Path) -> None:
    texts, expected = golden("nomic_bert")
    complete("nomic_bert", tmp_path)
    rename(
        tmp_path,
        ("^layers", "encoder.layers"),
        ("^embeddings.LayerNorm", "emb_ln"),
        ("self_attn.o_proj", "attn.out_proj"),
        ("mlp.up_proj", "mlp.fc11"),
        ("mlp.gate_proj", "mlp.fc12"),
        ("mlp.down_proj", "mlp.fc2"),
        ("post_attention_layernorm", "norm1"),
        ("post_mlp_layernorm", "norm2"),
        join=("attn.Wqkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    )
    authors = {"model_type": "nomic_bert", "vocab_size": 120, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 40}
    more = {"n_positions": 64, "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000, "activation_function": "swiglu"}
    (tmp_path / "config.json").write_text(json.dumps({**authors, **more, "rotary_scaling_factor": None}))
    assert np.abs(encode(tmp_path, texts) - expected).max() <= TOLERANCE
    for change in ({"activation_function": "geglu"}, {"rotary_emb_fraction": 0.5}, {"qkv_proj_bias": True}):
        edit(tmp_path, **(more | change))
        with pytest.raises(UnsupportedModelError, match=next(iter(change))):
            encode(tmp_path, texts)
        edit(tmp_path, **(dict.fromkeys(change) | more))


def test_gte_as_its_authors_wrote_it(tmp_path: Path) -> None:
    texts, expected = golden("gte")
    complete("gte", tmp_path)
    rename(
        tmp_path,
        ("^layers", "encoder.layer"),
        ("self_attn.o_proj", "attention.o_proj"),
        ("post_attention_layernorm", "attn_ln"),
        ("post_mlp_layernorm", "mlp_ln"),
        ("^", "new."),
        join=("attention.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    )
    rename(tmp_path, join=("mlp.up_gate_proj", ("mlp.up_proj", "mlp.gate_proj")))
    authors = {"model_type": "new", "rope_parameters": None, "rope_theta": 160_000, "pack_qkv": True}
    edit(tmp_path, **authors, position_embedding_type="rope", layer_norm_type="layer_norm")
    assert np.abs(encode(tmp_path, texts) - expected).max() <= TOLERANCE
    edit(tmp_path, rope_scaling={"type": "ntk", "factor": 2.0})
    assert np.abs(encode(tmp_path, texts) - expected).max() > 10 * TOLERANCE
    for change in (
        {"rope_scaling": {"type": "yarn", "factor": 2.0}},
        {"position_embedding_type": "absolute"},
        {"logn_attention_scale": True},
    ):
        edit(tmp_path, **change)
        with pytest.raises(UnsupportedModelError, match=next(iter(change))):
            encode(tmp_path, texts)
        edit(tmp_path, rope_scaling=None, position_embedding_type="rope", logn_attention_scale=False)


def test_gte_without_token_types(tmp_path: Path) -> None:
    texts, _ = golden("gte")
    complete("gte", tmp_path)
    weights = read(tmp_path)
    types = weights.pop("embeddings.token_type_embeddings.weight")
    whole = encode(tmp_path, texts)
    words = weights["embeddings.word_embeddings.weight"].astype(mx.float32) + types[0].astype(mx.float32)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights | {"embeddings.word_embeddings.weight": words})
    edit(tmp_path, type_vocab_size=0)
    assert np.abs(encode(tmp_path, texts) - whole).max() <= TOLERANCE


def test_ntk_scaling_of_gte() -> None:
    """Fixed NTK: the base times the factor, and the frequencies slowed by factor^(2 / head_dim)."""
    sizes = {"vocab_size": 9, "hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12}
    more = {"intermediate_size": 9, "max_position_embeddings": 8192, "rope_theta": 500_000}
    config = GteConfig.from_dict({**sizes, **more, "rope_scaling": {"type": "ntk", "factor": 2.0}})
    rope = Rope(64, config.theta, 8192, config.slowdown)
    frequencies = 1e6 ** (-np.arange(0, 64, 2) / 64) / 2 ** (2 / 64)
    assert np.allclose(rope.cos[100], np.cos(100 * frequencies), atol=1e-4)
    assert np.allclose(rope.sin[1], np.sin(frequencies), atol=1e-6)


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("name", LIVE)
def test_live(name: str, engine: str, tmp_path: Path) -> None:
    folder = "roberta" if name.endswith(("roberta", "camembert")) else name
    edit(complete(folder, tmp_path), model_type=name)
    words = ["the", "wing", "flow", "of", "heat", "is", "in", "code", "qux", "42", "!"]
    rng = np.random.default_rng()
    texts = [" ".join(rng.choice(words, size=n)) for n in rng.permutation(np.arange(0, 80))]
    expected = oracle(tmp_path).encode(texts, batch_size=16, normalize_embeddings=True)
    assert np.abs(encode(tmp_path, texts, engine=engine) - expected).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"),
    [
        ("distilbert", {"dim": None}, CheckpointError, 'has no "dim", which model_type'),
        ("distilbert", {"n_layers": 3}, CheckpointError, "asks for 3 layers, but the weights hold 2"),
        ("distilbert", {"activation": "mish"}, UnsupportedModelError, "mish"),
        ("roberta", {"position_embedding_type": "relative_key"}, UnsupportedModelError, "relative_key"),
        ("roberta", {"pad_token_id": "x"}, CheckpointError, "\"pad_token_id\": 'x'"),
        ("modernbert", {"layer_types": ["full_attention"]}, CheckpointError, "1 layer_types for 4 layers"),
        ("modernbert", {"layer_types": ["linear"] * 4}, CheckpointError, "layer_types"),
        ("modernbert", {"layer_types": "x"}, CheckpointError, "layer_types"),
        ("modernbert", {"norm_bias": 1}, CheckpointError, '"norm_bias": 1, where a bool'),
        ("modernbert", {"norm_bias": True}, CheckpointError, "norm.bias"),
        ("modernbert", {"num_hidden_layers": 10**9, "layer_types": None}, CheckpointError, "num_hidden_layers"),
        ("modernbert", {"max_position_embeddings": 10**9}, CheckpointError, "max_position_embeddings"),
        ("nomic_bert", {"rope_parameters": {"rope_type": "yarn"}}, UnsupportedModelError, "yarn"),
        ("nomic_bert", {"rope_parameters": [1]}, UnsupportedModelError, "rope_parameters"),
        ("nomic_bert", {"rope_parameters": {"rope_theta": "x"}}, CheckpointError, "rope_theta"),
        ("gte", {"model_type": "llama"}, UnsupportedModelError, "'llama' is not supported; mlx_embed has bert, came"),
    ],
)
def test_bad_config(name: str, changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    edit(complete(name, tmp_path), **changes)
    with pytest.raises(error, match=message):
        encode(tmp_path, ["a"])


@pytest.mark.parametrize("name", ENCODERS)
def test_a_missing_tensor_is_named_as_the_checkpoint_names_it(name: str, tmp_path: Path) -> None:
    complete(name, tmp_path)
    weights = read(tmp_path)
    for lost in [key for key in weights if ".1." in key]:
        rest = {key: value for key, value in weights.items() if key != lost}
        mx.save_safetensors(str(tmp_path / "model.safetensors"), rest)
        with pytest.raises(CheckpointError) as caught:
            encode(tmp_path, ["a"])
        assert lost in str(caught.value) or lost.replace("q_", "k_") in str(caught.value)
