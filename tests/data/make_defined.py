"""Make the tiny checkpoints of tests/definitions.py, and jina_embeddings_v3's, and defined.npz, their golden vectors.

python tests/data/make_defined.py
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.checkpoints import encoder
from tests.mlx_embed.architectures import cases

HERE = Path(__file__).parent
V, H, F = 120, 32, 40
Shapes = dict[str, tuple[int, ...]]


def _linear(name: str, rows: int, columns: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def _norm(name: str) -> Shapes:
    return {f"{name}.weight": (H,), f"{name}.bias": (H,)}


def jina(*, code: bool) -> tuple[Shapes, dict[str, Any]]:
    """Of a base model, or of one for code."""
    tables = {"word_embeddings.weight": (V, H), "token_type_embeddings.weight": (2, H)}
    shapes: Shapes = {f"embeddings.{name}": shape for name, shape in tables.items()} | _norm("embeddings.LayerNorm")
    for index in range(2):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{layer}.attention.self.{part}", H, H)
        shapes |= _linear(f"{layer}.attention.output.dense", H, H) | _norm(f"{layer}.attention.output.LayerNorm")
        if code:
            for part in ("q", "k"):
                shapes |= _norm(f"{layer}.attention.self.layer_norm_{part}")
            shapes |= _linear(f"{layer}.mlp.up_gated_layer", 2 * F, H, bias=False)
            shapes |= _linear(f"{layer}.mlp.down_layer", H, F)
            shapes |= _norm(f"{layer}.layer_norm_1") | _norm(f"{layer}.layer_norm_2")
        else:
            shapes |= _linear(f"{layer}.mlp.gated_layers", 2 * F, H, bias=False) | _linear(f"{layer}.mlp.wo", H, F)
            shapes |= _norm(f"{layer}.mlp.layernorm")
    place = "jinaai/jina-bert-v2-qk-post-norm" if code else "jinaai/jina-bert-implementation"
    config = {
        "model_type": "bert",
        "architectures": ["JinaBertForMaskedLM" if code else "JinaBertModel"],
        "auto_map": {"AutoModel": f"{place}--modeling_bert.JinaBertModel"},
        "position_embedding_type": "alibi",
        "feed_forward_type": "geglu",
        "vocab_size": V,
        "hidden_size": H,
        "intermediate_size": F,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }
    return shapes, config


def nomic() -> tuple[Shapes, dict[str, Any]]:
    """Four experts, of which each token has two, in the second layer of two."""
    tables = {"word_embeddings.weight": (V, H), "token_type_embeddings.weight": (1, H)}
    shapes: Shapes = {f"embeddings.{name}": shape for name, shape in tables.items()} | _norm("emb_ln")
    for index in range(2):
        layer = f"encoder.layers.{index}"
        shapes |= _linear(f"{layer}.attn.Wqkv", 3 * H, H) | _linear(f"{layer}.attn.out_proj", H, H)
        shapes |= _norm(f"{layer}.norm1") | _norm(f"{layer}.norm2")
        if index == 1:
            shapes |= _linear(f"{layer}.mlp.router.layer", 4, H, bias=False)
            shapes |= {f"{layer}.mlp.experts.mlp.{part}": (4 * F, H) for part in ("w1", "w2")}
            shapes[f"{layer}.mlp.experts.bias"] = (H,)
        else:
            shapes |= _linear(f"{layer}.mlp.fc1", F, H) | _linear(f"{layer}.mlp.fc2", H, F)
    sizes = {"vocab_size": V, "n_embd": H, "n_layer": 2, "n_head": 4, "n_inner": F, "n_positions": 64}
    moe = {"moe_every_n_layers": 2, "moe_top_k": 2, "num_experts": 4, "moe_normalize_expert_weights": False}
    biases = dict.fromkeys(("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"), True)
    other = {"activation_function": "gelu", "layer_norm_epsilon": 1e-5, "rotary_emb_base": 100, "type_vocab_size": 1}
    return shapes, {"model_type": "nomic_bert", **sizes, **moe, **biases, **other}


def write(name: str, shapes: Shapes, config: dict[str, Any]) -> None:
    """A checkpoint of random numbers in half precision."""
    rng = np.random.default_rng(0)
    tensors = {}
    for key, shape in shapes.items():
        noise = 0.2 * rng.normal(size=shape)
        middle = 1.0 if key.endswith("weight") and len(shape) == 1 else 0.0
        tensors[key] = mx.array((middle + noise).astype(np.float16))
    folder = HERE / "encoders" / name
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_jina_v3() -> None:
    """Of transformers' class."""
    from transformers import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model

    from tests.data.make_checkpoints import randomize

    sizes = {"vocab_size": V, "hidden_size": H, "num_attention_heads": 4, "intermediate_size": F}
    rope = {"rope_type": "default", "rope_theta": 20000.0}
    config = JinaEmbeddingsV3Config(num_hidden_layers=2, max_position_embeddings=64, rope_parameters=rope, **sizes)
    model = JinaEmbeddingsV3Model(config, add_pooling_layer=False)
    randomize(model)
    model.eval().half().save_pretrained(HERE / "encoders/jina_embeddings_v3", save_original_format=False)
    (HERE / "encoders/jina_embeddings_v3/model.safetensors").chmod(0o644)


def write_ultrabert() -> None:
    """Of transformers' class: a layer that sees what is near, one that sees all, and one more of the first kind."""
    from transformers import UltrabertConfig, UltrabertModel

    from tests.data.make_checkpoints import randomize

    sizes = {"vocab_size": V, "hidden_size": H, "num_attention_heads": 4, "intermediate_size": F, "head_dim": 8}
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    config = UltrabertConfig(
        num_hidden_layers=3,
        num_key_value_heads=2,
        max_position_embeddings=64,
        sliding_window=6,
        layer_types=types,
        **sizes,
    )
    model = UltrabertModel(config)
    randomize(model)
    model.eval().half().save_pretrained(HERE / "encoders/ultrabert")
    (HERE / "encoders/ultrabert/model.safetensors").chmod(0o644)


def write_embedding_gemma2() -> None:
    """Of transformers' class: two kinds of layers, with heads of their own sizes."""
    from transformers import EmbeddingGemma2TextConfig, EmbeddingGemma2TextModel

    from tests.data.make_checkpoints import randomize

    sizes = {"vocab_size": V, "hidden_size": H, "intermediate_size": F, "num_hidden_layers": 3, "embedding_dim": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 16}
    config = EmbeddingGemma2TextConfig(
        max_position_embeddings=64,
        sliding_window=6,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        hidden_size_per_layer_input=16,
        **sizes,
        **heads,
    )
    model = EmbeddingGemma2TextModel(config)
    randomize(model)
    for index, layer in enumerate(model.layers):
        layer.layer_scalar.fill_(0.5 + 0.25 * index)
    model.eval().half().save_pretrained(HERE / "encoders/embedding_gemma2")
    (HERE / "encoders/embedding_gemma2/model.safetensors").chmod(0o644)


def main() -> None:
    """Write all."""
    from tests.data.make_checkpoints import texts

    write("jina_bert", *jina(code=False))
    write("jina_bert_code", *jina(code=True))
    write("nomic_bert_moe", *nomic())
    write_jina_v3()
    write_ultrabert()
    write_embedding_gemma2()
    golden = {}
    for name in (
        "jina_bert",
        "jina_bert_code",
        "nomic_bert_moe",
        "jina_embeddings_v3",
        "ultrabert",
        "embedding_gemma2",
    ):
        with tempfile.TemporaryDirectory() as folder:
            model = cases.oracle(encoder(name, Path(folder)))
            golden[name] = model.encode(texts(), batch_size=4, normalize_embeddings=True)
    np.savez_compressed(HERE / "defined.npz", texts=np.array(texts()), **golden)


if __name__ == "__main__":
    main()
