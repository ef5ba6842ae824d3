"""NomicBERT under its authors' names."""

import json
from pathlib import Path

import pytest

from mlx_embed import UnsupportedModelError
from tests.checkpoints import edit, rename
from tests.mlx_embed.architectures.cases import TOLERANCE, difference, encode, golden, make


def test_as_its_authors_wrote_it(tmp_path: Path) -> None:
    texts, expected = golden("nomic_bert")
    make("nomic_bert", tmp_path)
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
    assert difference(encode(tmp_path, texts), expected) <= TOLERANCE
    for change in ({"activation_function": "geglu"}, {"rotary_emb_fraction": 0.5}, {"qkv_proj_bias": True}):
        edit(tmp_path, **(more | change))
        with pytest.raises(UnsupportedModelError, match=next(iter(change))):
            encode(tmp_path, texts)
        edit(tmp_path, **(dict.fromkeys(change) | more))
