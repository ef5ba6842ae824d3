"""Decoders, in mlx-lm's model code, against transformers and sentence-transformers: golden vectors, live, bad input."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CheckpointError, CrossEncoder, EmbeddingModel, UnsupportedModelError, convert
from mlx_embed.batching import padded_shapes
from mlx_embed.engine.device import accelerator
from tests.conftest import DATA
from tests.test_encoders import edit, read, rename
from tests.test_modules import NORMALIZE, dense, pooling, weights

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mlx_lm") is None, reason="mlx-lm is not installed")

TOLERANCE = 1e-5
IDENTITY = {"activation": "linear.Identity", "bias": False}
# As the families' best known embedders have it: special tokens around a text, the side of padding, and modules.
FAMILIES: dict[str, tuple[str, str, list[tuple[str, dict[str, Any]]]]] = {
    "qwen3": ("A [SEP]", "left", [pooling("lasttoken"), NORMALIZE]),
    "mistral": ("[CLS] A [SEP]", "left", [pooling("lasttoken"), NORMALIZE]),
    "gemma3_text": (
        "[CLS] A [SEP]",
        "right",
        [pooling("mean"), dense(32, 64, **IDENTITY), dense(64, 32, **IDENTITY), NORMALIZE],
    ),
}
PROMPTS = {"query": "Instruct: find the wing\nQuery:", "document": "title: none | text: "}
# What else config.json can say, of the same weights.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {}),
    "qwen3, own base": ("qwen3", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "qwen3, linear": ("qwen3", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}}),
    "qwen3, yarn": (
        "qwen3",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 2048,
                "rope_theta": 100.0,
            }
        },
    ),
    "qwen3, yarn of old": ("qwen3", {"rope_parameters": None, "rope_scaling": {"type": "yarn", "factor": 4.0}}),
    "mistral": ("mistral", {}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "mistral, old base": ("mistral", {"rope_parameters": None, "rope_theta": 500.0}),
    "mistral, llama3": (
        "mistral",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
                "rope_theta": 1e4,
            }
        },
    ),
    "gemma3_text": ("gemma3_text", {}),
    "gemma3_text, odd window": ("gemma3_text", {"sliding_window": 7}),
    "gemma3_text, causal": ("gemma3_text", {"use_bidirectional_attention": False}),
    "gemma3_text, no full layer": ("gemma3_text", {"layer_types": ["sliding_attention"] * 3}),
    "gemma3_text, causal, no full layer": (
        "gemma3_text",
        {"layer_types": ["sliding_attention"] * 3, "use_bidirectional_attention": False},
    ),
    "gemma3_text, no sliding layer": ("gemma3_text", {"layer_types": ["full_attention"] * 3}),
    "gemma3_text, of old": (
        "gemma3_text",
        {
            "rope_parameters": None,
            "layer_types": None,
            "_sliding_window_pattern": 2,
            "sliding_window_pattern": 2,
            "rope_theta": 5000.0,
            "rope_local_base_freq": 300.0,
            "rope_scaling": {"rope_type": "linear", "factor": 3.0},
        },
    ),
}


def complete(folder: Path, name: str) -> Path:
    """A checkpoint folder of a decoder with what an embedder has beside it."""
    specials, side, stack = FAMILIES[name]
    tokenizer = json.loads((DATA / "tiny-bert/tokenizer.json").read_text())
    template = [
        {"Sequence": {"id": "A", "type_id": 0}} if part == "A" else {"SpecialToken": {"id": part, "type_id": 0}}
        for part in specials.split()
    ]
    tokenizer["post_processor"]["single"] = template
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((DATA / "tiny-bert/tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": side}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": PROMPTS}))
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    rng = np.random.default_rng(7)
    for index, (kind, config) in enumerate(stack, start=1):
        place = folder / f"{index}_{kind}"
        place.mkdir()
        listed.append(
            {"idx": index, "name": str(index), "path": place.name, "type": f"sentence_transformers.models.{kind}"}
        )
        if config:
            (place / "config.json").write_text(json.dumps(config))
        if tensors := weights(kind, config, rng):
            mx.save_safetensors(str(place / "model.safetensors"), {k: mx.array(v) for k, v in tensors.items()})
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


def tiny(name: str, folder: Path) -> Path:
    """A copy of tests/data/decoders/<name>, completed."""
    shutil.copytree(DATA / "decoders" / name, folder, dirs_exist_ok=True)
    return complete(folder, name)


def make(name: str, folder: Path) -> None:
    """A decoder of random weights in half precision, by transformers."""
    import torch
    import transformers

    kinds = {
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3Model),
        "mistral": (transformers.MistralConfig, transformers.MistralModel),
        "gemma3_text": (transformers.Gemma3TextConfig, transformers.Gemma3TextModel),
    }
    sizes = {"vocab_size": 120, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64}
    own: dict[str, dict[str, Any]] = {
        "qwen3": {"tie_word_embeddings": True},
        "mistral": {"sliding_window": 12, "head_dim": None},
        "gemma3_text": {
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "query_pre_attn_scalar": 20,
            "use_bidirectional_attention": True,
        },
    }
    config, kind = kinds[name]
    model = kind(config(**(sizes | heads | own[name])))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            middle = 1.0 if "norm" in key and name != "gemma3_text" else 0.0
            parameter.copy_(middle + 0.2 * torch.randn(parameter.shape, generator=generator))
    model.eval().half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def oracle(folder: Path) -> Any:
    pytest.importorskip("sentence_transformers", reason="PyTorch oracles are not installed")
    import torch
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


def golden(name: str) -> tuple[list[str], dict[str, np.ndarray]]:
    with np.load(DATA / "decoders.npz") as file:
        return file["texts"].tolist(), {key.removeprefix(f"{name}: "): file[key] for key in file.files}


def load(folder: Path, **options: Any) -> EmbeddingModel:
    return EmbeddingModel.from_pretrained(folder, device="cpu", **options)


@pytest.mark.parametrize("engine", ["auto", "graph"])
@pytest.mark.parametrize("name", FAMILIES)
def test_golden_vectors(name: str, engine: str, tmp_path: Path) -> None:
    texts, expected = golden(name)
    model = load(tiny(name, tmp_path), engine=engine)
    assert model.engine.name == "padded"
    assert np.abs(model.encode(texts) - expected[name]).max() <= TOLERANCE
    assert np.abs(model.encode_query(texts) - expected["query"]).max() <= TOLERANCE
    short = model.encode_document(texts, truncate_dim=12)
    assert np.abs(short - expected["short"]).max() <= TOLERANCE


@pytest.mark.skipif(accelerator() is None, reason="MLX finds no Metal or CUDA device here")
@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_golden_vectors_on_the_accelerator(name: str, dtype: str, engine: str, tmp_path: Path) -> None:
    texts, expected = golden(name)
    found = EmbeddingModel.from_pretrained(tiny(name, tmp_path), device="gpu", dtype=dtype, engine=engine).encode(texts)
    if dtype == "float32":
        assert np.abs(found - expected[name]).max() <= TOLERANCE
    assert (found * expected[name]).sum(axis=1).min() >= 0.9999


@pytest.mark.parametrize(("dtype", "least"), [("float16", 0.9999), ("bfloat16", 0.995)])
@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision(name: str, dtype: str, least: float, tmp_path: Path) -> None:
    texts, expected = golden(name)
    model = load(tiny(name, tmp_path), dtype=dtype)
    assert f"dtype={dtype}" in repr(model)
    assert (model.encode(texts) * expected[name]).sum(axis=1).min() >= least


@pytest.mark.parametrize("name", FAMILIES)
def test_batched_equals_single(name: str, tmp_path: Path) -> None:
    texts, _ = golden(name)
    model = load(tiny(name, tmp_path))
    single = np.stack([model.encode(text) for text in texts])
    assert np.abs(model.encode(texts) - single).max() <= TOLERANCE
    assert np.abs(model.encode(texts, batch_tokens=100) - single).max() <= TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_variants(variant: str, tmp_path: Path) -> None:
    name, changes = VARIANTS[variant]
    texts, expected = golden(name)
    assert np.abs(load(edit(tiny(name, tmp_path), **changes)).encode(texts) - expected[variant]).max() <= TOLERANCE
    others = [key for key in VARIANTS if key.startswith(name) and key != variant]
    assert all(np.abs(expected[variant] - expected[other]).max() > 10 * TOLERANCE for other in others)


@pytest.mark.parametrize("variant", VARIANTS)
def test_live(variant: str, tmp_path: Path) -> None:
    """Texts of every length up to past the maximum, in padded mixed batches on both sides."""
    name, changes = VARIANTS[variant]
    edit(tiny(name, tmp_path), **changes)
    words = ["the", "wing", "flow", "of", "heat", "is", "in", "code", "qux", "42", "!"]
    rng = np.random.default_rng()
    texts = [" ".join(rng.choice(words, size=n)) for n in rng.permutation(np.arange(0, 80))]
    reference = oracle(tmp_path)
    expected = reference.encode(texts, batch_size=16)
    assert np.abs(load(tmp_path).encode(texts) - expected).max() <= TOLERANCE
    assert (load(tmp_path, dtype="float16").encode(texts) * expected).sum(axis=1).min() >= 0.9999
    queries = reference.encode_query(texts[:20], batch_size=16)
    assert np.abs(load(tmp_path).encode_query(texts[:20]) - queries).max() <= TOLERANCE


@pytest.mark.parametrize("name", FAMILIES)
def test_conversion_keeps_the_vectors(name: str, tmp_path: Path) -> None:
    texts, expected = golden(name)
    (tmp_path / "a").mkdir()
    convert(tiny(name, tmp_path / "a"), tmp_path / "b")
    assert np.abs(load(tmp_path / "b").encode(texts) - expected[name]).max() <= TOLERANCE
    convert(tmp_path / "a", tmp_path / "c", quantize=8, group_size=32)
    quantized = load(tmp_path / "c")
    assert "scales" in quantized.engine.encoder.embed_tokens
    assert "scales" in quantized.engine.encoder.layers[0].self_attn.q_proj
    assert (quantized.encode(texts) * expected[name]).sum(axis=1).min() >= 0.995


def test_head_dim_need_not_be_given(tmp_path: Path) -> None:
    texts, expected = golden("mistral")
    assert (
        np.abs(load(edit(tiny("mistral", tmp_path), head_dim=None)).encode(texts) - expected["mistral"]).max()
        <= TOLERANCE
    )


@pytest.mark.parametrize("metadata", [{"format": "pt"}, {"format": "mlx"}], ids=["transformers", "mlx-lm"])
def test_a_prefix_and_a_head_are_left_out(metadata: dict[str, str], tmp_path: Path) -> None:
    texts, expected = golden("qwen3")
    rename(tiny("qwen3", tmp_path), ("^", "model."))
    tensors = read(tmp_path) | {"lm_head.weight": mx.zeros((120, 32))}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors, metadata)
    assert np.abs(load(tmp_path).encode(texts) - expected["qwen3"]).max() <= TOLERANCE


def test_a_checkpoint_that_mlx_lm_quantized(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    convert(tiny("qwen3", tmp_path / "a"), tmp_path / "b", quantize=4, group_size=32)
    expected = load(tmp_path / "b").encode(["the wing", "heat"])
    tensors = {f"model.{name}": tensor for name, tensor in read(tmp_path / "b").items()}
    head = {"lm_head.weight": mx.zeros((120, 4), dtype=mx.uint32), "lm_head.scales": mx.zeros((120, 1))}
    mx.save_safetensors(str(tmp_path / "b/model.safetensors"), tensors | head, {"format": "mlx"})
    edit(tmp_path / "b", quantization={"group_size": 32, "bits": 4, "mode": "affine"})
    assert (load(tmp_path / "b").encode(["the wing", "heat"]) == expected).all()


def test_compiled_graphs_are_those_stated(tmp_path: Path) -> None:
    model = load(tiny("gemma3_text", tmp_path), engine="graph")
    seen = set()
    encoder = model.engine.encoder

    def traced(input_ids: mx.array, cu_seqlens: mx.array, max_seqlen: int) -> mx.array:
        seen.add((input_ids.shape[0], cu_seqlens.shape[0] - 1, max_seqlen))
        return encoder(input_ids, cu_seqlens, max_seqlen)

    model.engine.encoder = traced
    rng = np.random.default_rng(0)
    for _ in range(5):
        model.encode(["wing " * int(n) for n in rng.integers(1, 60, size=100)], batch_tokens=256)
    assert 0 < len(seen) <= 20
    assert seen <= padded_shapes(256, 64)


def test_mlx_lm_itself_is_not_imported(tmp_path: Path) -> None:
    """It would import transformers, and lower the limit of open files."""
    script = (
        "import resource, sys; from mlx_embed import EmbeddingModel;"
        "before = resource.getrlimit(resource.RLIMIT_NOFILE);"
        f"EmbeddingModel.from_pretrained({str(tiny('qwen3', tmp_path))!r}, device='cpu').encode('the wing');"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == before; print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=DATA.parents[1], check=True
    )
    loaded = set(run.stdout.split())
    assert "mlx_embed.architectures.mlx_lm.qwen3" in loaded
    assert not loaded & {"mlx_lm", "transformers", "torch"}


def test_without_mlx_lm_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("mlx_embed.architectures.mlx_lm")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedModelError, match=r'mlx-lm.*pip install "mlx-embed\[decoders\]"'):
        load(tiny("qwen3", tmp_path))


def test_no_rerankers_yet(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="Rerankers of model_type 'qwen3'"):
        CrossEncoder.from_pretrained(tiny("qwen3", tmp_path), device="cpu")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_missing_or_unknown_tensor_is_named(name: str, tmp_path: Path) -> None:
    tiny(name, tmp_path)
    tensors = read(tmp_path)
    for lost in ("norm.weight", "embed_tokens.weight", *(key for key in tensors if ".1." in key)):
        rest = {key: value for key, value in tensors.items() if key != lost}
        mx.save_safetensors(str(tmp_path / "model.safetensors"), rest)
        with pytest.raises(CheckpointError, match=f"lacks {lost} in model.safetensors"):
            load(tmp_path)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors | {"layers.0.self_attn.q_proj.bias": mx.zeros(64)})
    with pytest.raises(CheckpointError, match=r"has tensor 'layers.0.self_attn.q_proj.bias"):
        load(tmp_path)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors | {"norm.weight": mx.zeros(31)})
    with pytest.raises(CheckpointError, match="has shape"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"),
    [
        ("qwen3", {"head_dim": None}, CheckpointError, 'has no "head_dim"'),
        ("qwen3", {"num_hidden_layers": 4}, CheckpointError, "asks for 4 layers, but the weights hold 3"),
        ("qwen3", {"num_hidden_layers": 10**9}, CheckpointError, "num_hidden_layers"),
        ("qwen3", {"num_key_value_heads": 3}, CheckpointError, "4 heads of 16 dimensions for 3 key_value_heads"),
        ("qwen3", {"head_dim": 15}, CheckpointError, "4 heads of 15"),
        ("qwen3", {"hidden_act": "gelu"}, UnsupportedModelError, "'gelu'; mlx_embed has 'silu'"),
        ("qwen3", {"attention_bias": True}, UnsupportedModelError, "attention_bias"),
        ("qwen3", {"use_sliding_window": True}, UnsupportedModelError, "use_sliding_window"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 3}, UnsupportedModelError, "layer_types"),
        ("qwen3", {"layer_types": 1}, UnsupportedModelError, "layer_types"),
        ("qwen3", {"rope_parameters": {"rope_type": "dynamic"}}, UnsupportedModelError, "dynamic"),
        ("qwen3", {"rope_parameters": {"rope_type": ["x"]}}, UnsupportedModelError, "RoPE"),
        ("qwen3", {"rope_parameters": [1]}, UnsupportedModelError, "RoPE"),
        ("qwen3", {"rope_parameters": {"rope_theta": "x"}}, CheckpointError, "rope_theta"),
        ("qwen3", {"rope_parameters": {"rope_type": "linear"}}, CheckpointError, '"factor": None'),
        (
            "qwen3",
            {"rope_parameters": {"rope_type": "yarn", "factor": 2, "mscale": 2}},
            UnsupportedModelError,
            "mscale",
        ),
        ("mistral", {"num_key_value_heads": None}, CheckpointError, "layers.0.self_attn.k_proj.weight.* has shape"),
        ("mistral", {"sliding_window": "x"}, CheckpointError, "\"sliding_window\": 'x'"),
        ("mistral", {"sliding_window": 0}, CheckpointError, '"sliding_window": 0'),
        ("mistral", {"num_attention_heads": "x"}, CheckpointError, "num_attention_heads"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, UnsupportedModelError, "attn_logit_softcapping"),
        ("gemma3_text", {"use_bidirectional_attention": "x"}, CheckpointError, "use_bidirectional_attention"),
        ("gemma3_text", {"sliding_window": "x"}, CheckpointError, "sliding_window"),
        ("gemma3_text", {"layer_types": ["full_attention"]}, UnsupportedModelError, "one for each layer"),
        (
            "gemma3_text",
            {"layer_types": ["full_attention", *["sliding_attention"] * 2]},
            UnsupportedModelError,
            "regular",
        ),
    ],
)
def test_bad_config(name: str, changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    edit(tiny(name, tmp_path), **changes)
    with pytest.raises(error, match=message):
        load(tmp_path)
