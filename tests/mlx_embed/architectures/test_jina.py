"""Jina's own forms of BERT and XLM-R: what there is besides the vectors of cases.py."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CrossEncoder
from mlx_embed.architectures import ops
from tests.checkpoints import damage, edit, read, rename
from tests.definitions import Defined, slopes
from tests.mlx_embed.architectures.cases import TOLERANCE, difference, encode, golden, make


@pytest.mark.parametrize("array", [np.zeros(1, dtype=np.float32), mx.zeros(1)], ids=["native", "graph"])
def test_alibi(array: Any) -> None:
    for heads in range(1, 25):
        bias = np.array(ops.alibi(array, heads, 3))
        assert np.allclose(bias, np.outer(slopes(heads), [-2, -1, 0, -1, -2]), rtol=1e-6)
    assert ops.alibi(array, 2, 0).shape == (2, 1)


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_a_text_far_longer_than_most(engine: str, tmp_path: Path) -> None:
    """Whose tokens are hundreds apart, as those of none in the golden vectors."""
    edit(make("jina_bert", tmp_path), max_position_embeddings=512)
    damage(tmp_path, "tokenizer_config.json", {"model_max_length": 512})
    defined = Defined(tmp_path)
    defined.tokenizer.enable_truncation(512)
    texts = ["the wing flow of heat " * 40, "the"]
    expected = defined.encode(texts, normalize_embeddings=True)
    assert difference(encode(tmp_path, texts, engine=engine), expected) <= TOLERANCE


@pytest.mark.parametrize("name", ["jina_bert", "jina_bert, code"])
def test_another_activation(name: str, tmp_path: Path) -> None:
    texts, expected = golden(name)
    found = encode(edit(make(name, tmp_path), feed_forward_type="reglu"), texts)
    assert 1e-3 < difference(found, expected) < 0.5


def test_what_is_for_code_is_known_by_its_tensors(tmp_path: Path) -> None:
    """Who saves one anew writes another auto_map, or none."""
    texts, expected = golden("jina_bert, code")
    edit(make("jina_bert, code", tmp_path), auto_map=None)
    assert difference(encode(tmp_path, texts), expected) <= TOLERANCE


def test_reranker(tmp_path: Path) -> None:
    """jina-reranker-v1: BERT's head behind the first token."""
    damage(make("jina_bert", tmp_path), "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    rng = np.random.default_rng()
    shapes = {"bert.pooler.dense.weight": (32, 32), "bert.pooler.dense.bias": (32,)}
    shapes |= {"classifier.weight": (1, 32), "classifier.bias": (1,)}
    head = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors = {f"bert.{name}": array.astype(mx.float32) for name, array in read(tmp_path).items()}
    bare = Defined(tmp_path)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors | {k: mx.array(x) for k, x in head.items()})
    edit(tmp_path, architectures=["JinaBertForSequenceClassification"], id2label={"0": "L"}, label2id={"L": 0})
    pairs = [("the wing", "flow"), ("heat", "")]
    first = np.stack([_hidden_of_pair(bare, *pair)[0] for pair in pairs])
    pooled = np.tanh(first @ head["bert.pooler.dense.weight"].T + head["bert.pooler.dense.bias"])
    expected = pooled @ head["classifier.weight"].T + head["classifier.bias"]
    found = CrossEncoder.from_pretrained(tmp_path, device="cpu").predict(pairs, activation="Identity")
    assert np.abs(found - expected[:, 0]).max() <= 1e-5


def _hidden_of_pair(defined: Defined, query: str, document: str) -> np.ndarray:
    encoding = defined.tokenizer.encode(query, document)
    assert set(encoding.type_ids) == {0, 1}
    return defined.hidden(encoding.ids, encoding.type_ids)


OF_FLASH = [
    ("^embeddings.LayerNorm", "emb_ln"),
    ("^layers|^encoder.layer", "encoder.layers"),
    ("attention.output.dense|self_attn.o_proj", "mixer.out_proj"),
    ("attention.output.LayerNorm|post_attention_layernorm", "norm1"),
    ("intermediate.dense", "mlp.fc1"),
    (r"(\d)\.output.dense", r"\1.mlp.fc2"),
    (r"(\d)\.output.LayerNorm|(\d)\.post_mlp_layernorm", r"\1\2.norm2"),
    ("attention.self.(query|key|value)", r"mixer.\1"),
    ("self_attn.q_proj", "mixer.query"),
    ("self_attn.k_proj", "mixer.key"),
    ("self_attn.v_proj", "mixer.value"),
]
JOINED = ("mixer.Wqkv", ("mixer.query", "mixer.key", "mixer.value"))


@pytest.mark.parametrize("name", ["xlm-roberta", "jina_embeddings_v3"])
def test_as_its_authors_wrote_it(name: str, tmp_path: Path) -> None:
    """jina-reranker-v2 has XLM-R's positions, jina-embeddings-v3 rotary ones; both say "xlm-roberta"."""
    texts, expected = golden(name)
    rename(make(name, tmp_path), *OF_FLASH, ("^", "roberta."), join=JOINED)
    assert "roberta.encoder.layers.1.mixer.Wqkv.bias" in read(tmp_path)
    positions = "absolute" if name == "xlm-roberta" else "rotary"
    rope = {"rope_parameters": None, "rotary_emb_base": 20000.0, "position_embedding_type": positions}
    edit(tmp_path, model_type="xlm-roberta", **rope)
    assert difference(encode(tmp_path, texts), expected) <= TOLERANCE
    if name != "xlm-roberta":
        assert difference(encode(edit(tmp_path, rotary_emb_base=50), texts), expected) > 1e-3
