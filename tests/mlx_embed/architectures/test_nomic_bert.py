"""NomicBERT under its authors' names."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_embed import UnsupportedModelError
from tests.checkpoints import edit, rename
from tests.mlx_embed.architectures import test_settings as settings
from tests.mlx_embed.architectures.cases import TOLERANCE, difference, encode, golden, make

MORE = {"n_positions": 64, "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000, "activation_function": "swiglu"}


def as_its_authors_write_it(folder: Path, **more: Any) -> Path:
    """tests/data's with their tensors' names and config.json, where None leaves a key out."""
    rename(
        make("nomic_bert", folder),
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
    config = {**authors, **MORE, **more}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


# What is absent is transformers' default, which tests/data's has.
@pytest.mark.parametrize("more", [{"rotary_scaling_factor": None}, dict.fromkeys(MORE.keys() - {"n_positions"})])
def test_as_its_authors_wrote_it(more: dict[str, Any], tmp_path: Path) -> None:
    texts, expected = golden("nomic_bert")
    assert difference(encode(as_its_authors_write_it(tmp_path, **more), texts), expected) <= TOLERANCE


def test_its_authors_keys_of_what_shows_in_the_vectors(tmp_path: Path) -> None:
    as_its_authors_write_it(tmp_path, layer_norm_epsilon=settings.EPS, rotary_emb_base=50)
    found = encode(tmp_path, settings.TEXTS)
    assert difference(found, settings.expected("nomic_bert, eps and base")) <= TOLERANCE


@pytest.mark.parametrize(
    "change",
    [
        {"activation_function": "geglu"},
        {"rotary_emb_fraction": 0.5},
        {"rotary_emb_interleaved": True},
        {"rotary_scaling_factor": 2},
        {"prenorm": True},
        {"use_rms_norm": True},
        {"moe_normalize_expert_weights": True},
        {"expert_choice_router": True},
        {"num_shared_experts": 1},
        {"ffn_div": 2},
    ],
)
def test_what_is_not_implemented(change: dict[str, Any], tmp_path: Path) -> None:
    texts, _ = golden("nomic_bert")
    edit(as_its_authors_write_it(tmp_path), **change)
    with pytest.raises(UnsupportedModelError, match=next(iter(change))):
        encode(tmp_path, texts)
