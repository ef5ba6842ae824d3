"""config.json with values that are missing, misshapen or not implemented, of each architecture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import CheckpointError, EmbeddingModel, UnsupportedModelError
from mlx_embed.architectures import ARCHITECTURES
from mlx_embed.architectures.embedding_gemma2 import Heads
from tests.checkpoints import edit
from tests.mlx_embed.architectures.cases import BASES, make, needs_transformers

BAD = [
    ("distilbert", {"dim": None}, CheckpointError, 'has no "dim", which model_type'),
    ("distilbert", {"n_layers": 3}, CheckpointError, "asks for 3 layers, but the weights hold 2"),
    ("distilbert", {"activation": "prelu"}, UnsupportedModelError, "prelu"),
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
    ("gte", {"model_type": "opt"}, UnsupportedModelError, "'opt' is not supported; mlx_embed has albert, bert, came"),
    ("gte", {"model_type": "opt", "auto_map": {"AutoModel": "x.Y"}}, UnsupportedModelError, "Python code of the model"),
    ("bert", {"position_embedding_type": "alibi"}, CheckpointError, "lacks .* which the architecture needs"),
    ("bert", {"position_embedding_type": "rotary"}, UnsupportedModelError, "'rotary'; mlx_embed implements \"absol"),
    ("jina_bert", {"feed_forward_type": "original"}, UnsupportedModelError, "'original'; mlx_embed has geglu, reglu"),
    ("jina_bert", {"num_attention_heads": 5}, CheckpointError, "hidden_size 32 for 5 attention heads"),
    ("nomic_bert, experts", {"moe_top_k": 5}, CheckpointError, '"moe_top_k": 5 of "num_experts": 4'),
    ("nomic_bert, experts", {"num_experts": None}, CheckpointError, '"moe_top_k": 2 of "num_experts": 0'),
    ("nomic_bert, experts", {"num_experts": 5}, CheckpointError, "experts.mlp.w1.* has shape"),
    ("nomic_bert, experts", {"moe_every_n_layers": 0}, CheckpointError, "lacks encoder.layers.1.mlp.fc1"),
    ("nomic_bert, experts", {"qkv_proj_bias": 1}, CheckpointError, '"qkv_proj_bias": 1, where true or false'),
    ("nomic_bert, experts", {"qkv_proj_bias": False}, CheckpointError, "attn.Wqkv.bias"),
    ("nomic_bert, experts", {"activation_function": "swiglu"}, CheckpointError, "lacks "),
    ("embedding_gemma2", {"model_type": "embedding_gemma2"}, CheckpointError, '"text_config": None, where an object'),
    ("embedding_gemma2", {"num_hidden_layers": "x"}, CheckpointError, "\"num_hidden_layers\": 'x'"),
    ("embedding_gemma2", {"layer_types": ["full_attention"]}, CheckpointError, "for 3 layers"),
    ("embedding_gemma2", {"layer_types": None, "sliding_window_pattern": 0}, CheckpointError, "sliding_window_pattern"),
    ("embedding_gemma2", {"per_layer_config": [1]}, CheckpointError, "per_layer_config"),
    ("embedding_gemma2", {"per_layer_config": {"2": {"hidden_size": 3}}}, UnsupportedModelError, "hidden_size"),
    ("embedding_gemma2", {"per_layer_config": {"2": {"head_dim": 15}}}, CheckpointError, "layer 2"),
    ("embedding_gemma2", {"num_key_value_heads": 3}, CheckpointError, "4 attention heads for 3 of key and value"),
    ("embedding_gemma2", {"sliding_window": 0}, CheckpointError, "the window 0"),
    ("embedding_gemma2", {"hidden_activation": "silu"}, UnsupportedModelError, "'silu'; mlx_embed has 'gelu_pyto"),
    ("ultrabert", {"layer_types": ["full_attention"]}, CheckpointError, r"\['full_attention'\] for 3 layers"),
    ("ultrabert", {"layer_types": None, "attention_windows": [6, "x", 0]}, CheckpointError, "attention_windows"),
    ("ultrabert", {"rope_parameters": None, "rope_theta": [1e4]}, CheckpointError, r'"rope_theta": \[10000.0\] for 3'),
    ("ultrabert", {"hidden_act": "gelu"}, UnsupportedModelError, "'gelu'; mlx_embed has 'silu'"),
    ("ultrabert", {"sliding_window": 0}, CheckpointError, '"sliding_window": 0'),
    ("jina_embeddings_v3", {"rope_parameters": {"rope_type": "yarn"}}, UnsupportedModelError, "yarn"),
    ("albert", {"position_embedding_type": "relative_key"}, UnsupportedModelError, "'relative_key'.* for albert"),
    ("albert", {"num_hidden_groups": 3}, CheckpointError, "asks for 3 layers, but the weights hold 2"),
    ("electra", {"embedding_size": 0}, CheckpointError, '"embedding_size": 0'),
    ("deberta-v2", {"relative_attention": None}, UnsupportedModelError, '"relative_attention": False'),
    ("deberta-v2", {"conv_kernel_size": 3}, UnsupportedModelError, '"conv_kernel_size": 3; mlx_embed has 0'),
    ("deberta-v2", {"embedding_size": 16}, UnsupportedModelError, '"embedding_size": 16; mlx_embed has 32'),
    ("deberta-v2", {"pooler_hidden_act": "tanh"}, UnsupportedModelError, "\"pooler_hidden_act\": 'tanh'"),
    ("deberta-v2", {"pos_att_type": "p2p"}, UnsupportedModelError, r"\['p2p'\]; mlx_embed has c2p, p2c"),
    ("deberta-v2", {"pos_att_type": [1]}, UnsupportedModelError, r'"pos_att_type": \[1\]'),
    ("deberta-v2", {"position_buckets": 1}, CheckpointError, '"position_buckets": 1, where a number of distances'),
    ("deberta-v2", {"max_relative_positions": "x"}, CheckpointError, "\"max_relative_positions\": 'x'"),
    ("deberta-v2", {"norm_rel_ebd": 1}, CheckpointError, '"norm_rel_ebd": 1'),
    ("deberta-v2", {"norm_rel_ebd": "none"}, CheckpointError, "encoder.LayerNorm"),
    ("deberta-v2", {"share_att_key": 1}, CheckpointError, '"share_att_key": 1'),
    ("t5", {"is_gated_act": True}, CheckpointError, "lacks encoder.block.0.gate.weight"),
    ("t5", {"feed_forward_proj": "twice-gelu"}, CheckpointError, "\"feed_forward_proj\": 'twice-gelu'"),
    ("t5", {"feed_forward_proj": 1}, CheckpointError, '"feed_forward_proj": 1'),
    ("t5", {"relative_attention_num_buckets": 2}, CheckpointError, "2 buckets of distances up to 128"),
    ("t5", {"relative_attention_max_distance": 8}, CheckpointError, "32 buckets of distances up to 8"),
    ("t5", {"is_gated_act": 1}, CheckpointError, '"is_gated_act": 1, where true or false'),
    ("t5", {"dense_act_fn": "prelu"}, UnsupportedModelError, "prelu"),
    ("mpnet", {"relative_attention_num_buckets": 16}, CheckpointError, "16; MPNet has 32 buckets"),
    ("qwen2", {"use_sliding_window": True}, UnsupportedModelError, "use_sliding_window"),
    ("qwen2", {"layer_types": ["sliding_attention"] * 3}, UnsupportedModelError, "layer_types"),
    ("gemma", {"hidden_act": "silu"}, UnsupportedModelError, "'silu'; mlx_embed has 'gelu_pytorch_tanh'"),
    ("gemma", {"head_dim": None}, CheckpointError, "self_attn.q_proj.weight.* has shape"),
    ("llama", {"mlp_bias": False}, CheckpointError, "mlp.down_proj.bias"),
    ("llama", {"attention_bias": 1}, CheckpointError, '"attention_bias": 1, where a bool'),
    ("eurobert", {"hidden_act": "gelu"}, UnsupportedModelError, "'gelu'; mlx_embed has 'silu'"),
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
]


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"),
    BAD,
)
def test_bad_config(name: str, changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    edit(make(name, tmp_path), **changes)
    with pytest.raises(error, match=message):
        EmbeddingModel.from_pretrained(tmp_path, device="cpu")


@pytest.mark.parametrize("name", ["t5", "qwen3", "mistral", "gemma", "gemma3_text"])
def test_heads_of_a_size_of_their_own_need_not_divide_the_layers(name: str) -> None:
    sizes = {**SIZES, "num_attention_heads": 5, "num_heads": 5, "num_key_value_heads": 5, "head_dim": 16, "d_kv": 16}
    config = ARCHITECTURES[name].Config.from_dict(sizes)
    assert (config.num_attention_heads, config.head_dim) == (5, 16)


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_a_number_that_is_written_whole(engine: str, tmp_path: Path) -> None:
    """MLX takes no int beyond 64 bits for a float."""
    edit(make("bert", tmp_path), layer_norm_eps=10**30)
    model = EmbeddingModel.from_pretrained(tmp_path, device="cpu", engine=engine)
    assert type(model.checkpoint.encoder_config.layer_norm_eps) is float
    assert np.isfinite(model.encode("the wing")).all()


@pytest.mark.parametrize("value", [10**400, 1e39, float("inf"), 0, -1e-12, float("nan"), True, "1e-12"])
@pytest.mark.parametrize(
    ("name", "key"), [("bert", "layer_norm_eps"), ("modernbert", "norm_eps"), ("gte", "rope_theta")]
)
def test_numbers_that_float32_cannot_hold(name: str, key: str, value: Any, tmp_path: Path) -> None:
    edit(make(name, tmp_path), rope_parameters=None, **{key: value})
    with pytest.raises(
        CheckpointError, match=rf'config.json has "{key}": .*, where a (float|number above 1) is needed'
    ):
        EmbeddingModel.from_pretrained(tmp_path, device="cpu")


SIZES = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 4, "dim": 32}
SIZES |= {"n_layers": 6, "n_heads": 4, "hidden_dim": 48, "intermediate_size": 48, "max_position_embeddings": 66}
SIZES |= {"num_key_value_heads": 2, "head_dim": 16, "relative_attention": True, "embedding_size": 32}
SIZES |= {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 6, "num_heads": 4}
BERT = {"hidden_act": "gelu", "layer_norm_eps": 1e-12}
BIASES = {"norm_bias": False, "attention_bias": False, "mlp_bias": False}
DECODER = {"rope_scaling": None, "rms_norm_eps": 1e-6, "causal": True, "type_vocab_size": 0, "max_tokens": 66}
FULL, NEAR = "full_attention", "sliding_attention"
# What holds where config.json says nothing: transformers' defaults.
DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": {**BERT, "causal": False, "type_vocab_size": 2, "max_tokens": 66},
    "mpnet": {**BERT, "relative_attention_num_buckets": 32, "type_vocab_size": 0, "max_tokens": 64},
    "roberta": {**BERT, "pad_token_id": 1, "type_vocab_size": 2, "max_tokens": 64},
    "distilbert": {**BERT, "type_vocab_size": 0, "max_tokens": 66},
    "modernbert": {
        **BIASES,
        "hidden_activation": "gelu",
        "norm_eps": 1e-5,
        "local_attention": 128,
        "layer_types": (FULL, NEAR, NEAR, FULL, NEAR, NEAR),
        "full_theta": 160_000,
        "sliding_theta": 10_000,
        "type_vocab_size": 0,
        "max_tokens": 66,
    },
    "nomic_bert": {**BERT, "hidden_act": "silu", "theta": 1000, "type_vocab_size": 2, "max_tokens": 66},
    "gte": {**BERT, "theta": 160_000, "slowdown": 1, "type_vocab_size": 1, "max_tokens": 66},
    "jina_bert": {
        "layer_norm_eps": 1e-12,
        "feed_forward_type": "geglu",
        "normed": False,
        "type_vocab_size": 2,
        "max_tokens": 66,
    },
    "jina_embeddings_v3": {**BERT, "layer_norm_eps": 1e-5, "theta": 20_000, "type_vocab_size": 1, "max_tokens": 66},
    "embedding_gemma2": {
        "embedding_dim": 768,
        "hidden_size_per_layer_input": 512,
        "rms_norm_eps": 1e-6,
        "pad_token_id": 0,
        "media": (),
        "heads": (*[Heads(16, 2, 10_000, 512)] * 5, Heads(512, 1, 1_000_000, None)),
        "type_vocab_size": 0,
        "max_tokens": 66,
    },
    "ultrabert": {
        **DECODER,
        "causal": False,
        "rope_theta": 2_560_000,
        "sliding_theta": 10_000,
        "layer_types": (NEAR, NEAR, FULL, NEAR, NEAR, FULL),
        "sliding_window": 128,
        "attention_bias": False,
        "mlp_bias": False,
    },
    "electra": {**BERT, "causal": False, "type_vocab_size": 2, "max_tokens": 66},
    "albert": {
        **BERT,
        "hidden_act": "gelu_new",
        "num_hidden_layers": 1,
        "inner_group_num": 1,
        "type_vocab_size": 2,
        "max_tokens": 66,
    },
    "deberta-v2": {
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-7,
        "span": 66,
        "logarithmic": False,
        "kinds": (),
        "normalize_distances": False,
        "share_att_key": False,
        "position_biased_input": True,
        "type_vocab_size": 0,
        "max_tokens": 66,
    },
    "eurobert": {
        **DECODER,
        "rms_norm_eps": 1e-5,
        "causal": False,
        "rope_theta": 10_000,
        "attention_bias": False,
        "mlp_bias": False,
    },
    "t5": {
        "hidden_act": "relu",
        "gated": False,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "type_vocab_size": 0,
        "max_tokens": 1 << 15,
    },
    "qwen2": {**DECODER, "rope_theta": 10_000},
    "gemma": {**DECODER, "rope_theta": 10_000},
    "llama": {**DECODER, "rope_theta": 10_000, "attention_bias": False, "mlp_bias": False},
    "qwen3": {**DECODER, "rope_theta": 10_000},
    "mistral": {**DECODER, "rope_theta": 10_000, "sliding_window": 4096},
    "gemma3_text": {
        **DECODER,
        "rope_theta": 1_000_000,
        "rope_local_base_freq": 10_000,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
    },
}


@pytest.mark.parametrize("name", BASES)
def test_defaults(name: str) -> None:
    config = ARCHITECTURES[name].Config.from_dict(SIZES)
    assert {key: getattr(config, key) for key in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize("name", BASES)
def test_defaults_are_those_of_transformers(name: str) -> None:
    expected = needs_transformers(name).AutoConfig.for_model(name)
    # Under other names, or of a number of layers that is not the default.
    other = {"max_tokens", "layer_types", "rope_scaling", "type_vocab_size", "num_hidden_layers"}
    same = [key for key in DEFAULTS[name] if hasattr(expected, key) and key not in other]
    assert {key: getattr(expected, key) for key in same} == {key: DEFAULTS[name][key] for key in same}
    thetas = {key: value for key, value in DEFAULTS[name].items() if "theta" in key or key == "rope_local_base_freq"}
    rope = getattr(expected, "rope_parameters", None) or {}
    kinds = [rope] if "rope_theta" in rope else [rope[kind] for kind in (FULL, NEAR) if kind in rope]
    assert [kind["rope_theta"] for kind in kinds] == list(thetas.values())
