"""GTE under its authors' names, without token types, and with NTK scaling."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import UnsupportedModelError
from mlx_embed.architectures.gte import Config
from mlx_embed.architectures.ops import Rope
from tests.checkpoints import edit, read, rename
from tests.mlx_embed.architectures.cases import TOLERANCE, difference, encode, golden, make


def test_as_its_authors_wrote_it(tmp_path: Path) -> None:
    texts, expected = golden("gte")
    make("gte", tmp_path)
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
    assert difference(encode(tmp_path, texts), expected) <= TOLERANCE
    edit(tmp_path, rope_scaling={"type": "ntk", "factor": 2.0})
    assert difference(encode(tmp_path, texts), expected) > 10 * TOLERANCE
    for change in (
        {"rope_scaling": {"type": "yarn", "factor": 2.0}},
        {"position_embedding_type": "absolute"},
        {"logn_attention_scale": True},
    ):
        edit(tmp_path, **change)
        with pytest.raises(UnsupportedModelError, match=next(iter(change))):
            encode(tmp_path, texts)
        edit(tmp_path, rope_scaling=None, position_embedding_type="rope", logn_attention_scale=False)


def test_without_token_types(tmp_path: Path) -> None:
    texts, _ = golden("gte")
    make("gte", tmp_path)
    weights = read(tmp_path)
    types = weights.pop("embeddings.token_type_embeddings.weight")
    whole = encode(tmp_path, texts)
    words = weights["embeddings.word_embeddings.weight"].astype(mx.float32) + types[0].astype(mx.float32)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights | {"embeddings.word_embeddings.weight": words})
    edit(tmp_path, type_vocab_size=0)
    assert difference(encode(tmp_path, texts), whole) <= TOLERANCE


def test_ntk_scaling() -> None:
    """Fixed NTK: the base times the factor, and the frequencies slowed by factor^(2 / head_dim)."""
    sizes = {"vocab_size": 9, "hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12}
    more = {"intermediate_size": 9, "max_position_embeddings": 8192, "rope_theta": 500_000}
    config = Config.from_dict({**sizes, **more, "rope_scaling": {"type": "ntk", "factor": 2.0}})
    rope = Rope(64, config.theta, 8192, config.slowdown)
    frequencies = 1e6 ** (-np.arange(0, 64, 2) / 64) / 2 ** (2 / 64)
    cos, sin = rope.tables(101)
    assert np.allclose(cos[100], np.cos(100 * frequencies), atol=1e-4)
    assert np.allclose(sin[1], np.sin(frequencies), atol=1e-6)
