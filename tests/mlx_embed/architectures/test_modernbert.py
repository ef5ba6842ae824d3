"""ModernBERT: older config.json, and layers that see only nearby; its decoder, live."""

import json
from pathlib import Path

import pytest

from mlx_embed import CrossEncoder, UnsupportedModelError
from tests.checkpoints import edit
from tests.mlx_embed.architectures.cases import (
    TOLERANCE,
    difference,
    encode,
    golden,
    make,
    needs_transformers,
    oracle,
    random_texts,
)

pytestmark = pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")


def test_config_of_before_transformers_5(tmp_path: Path) -> None:
    texts, expected = golden("modernbert")
    make("modernbert", tmp_path)
    edit(tmp_path, layer_types=None, rope_parameters=None, global_attn_every_n_layers=3)
    assert difference(encode(tmp_path, texts), expected) <= TOLERANCE
    edit(tmp_path, global_rope_theta=1234.0)
    assert difference(encode(tmp_path, texts), expected) > 100 * TOLERANCE


def test_sees_only_the_neighbourhood_in_local_layers(tmp_path: Path) -> None:
    texts, expected = golden("modernbert")
    edit(make("modernbert", tmp_path), local_attention=18)
    assert difference(encode(tmp_path, texts), expected) > 10 * TOLERANCE


DECODER = "modernbert-decoder"
CHANGES: dict[str, dict[str, object]] = {
    "window": {"local_attention": 7, "sliding_window": None},
    "window, said twice": {"local_attention": 7, "sliding_window": 5},
    "only itself": {"local_attention": 3, "sliding_window": None},
    "of old": {
        "layer_types": None,
        "rope_parameters": None,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 900.0,
    },
    "sliding first": {"layer_types": ["sliding_attention", "full_attention"]},
}


@pytest.mark.parametrize("change", CHANGES)
def test_live_settings_of_a_decoder(change: str, tmp_path: Path) -> None:
    texts = random_texts(80)
    folder = edit(make(DECODER, tmp_path), **CHANGES[change])
    assert difference(encode(folder, texts), oracle(folder).encode(texts, normalize_embeddings=True)) <= TOLERANCE


def test_live_a_language_model_is_pooled_by_its_last_token(tmp_path: Path) -> None:
    """As Ettin's decoders lie on the hub: with the layers of a language model's head, which are passed over."""
    pytest.importorskip("torch", reason="PyTorch oracles are not installed")
    transformers = needs_transformers(DECODER)
    folder = make(DECODER, tmp_path)
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.ModernBertDecoderForCausalLM(config)
    model.model = transformers.ModernBertDecoderModel.from_pretrained(folder)
    model.save_pretrained(folder)
    edit(folder, dtype="float32")
    texts = random_texts(40)[1:]
    assert difference(encode(folder, texts), oracle(folder).encode(texts, normalize_embeddings=True)) <= TOLERANCE


def test_what_a_decoder_is_not(tmp_path: Path) -> None:
    """Neither one that sees both ways, nor a reranker."""
    folder = make(DECODER, tmp_path)
    texts, expected = golden(DECODER)
    assert difference(encode(edit(folder, sliding_window=9), texts), expected) > 10 * TOLERANCE
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {"yes": 118, "no": 119}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    for reranker in ("ForCausalLM", "ForSequenceClassification"):
        edit(folder, architectures=[f"ModernBertDecoder{reranker}"])
        with pytest.raises(UnsupportedModelError, match="Rerankers of model_type 'modernbert-decoder'"):
            CrossEncoder.from_pretrained(folder, device="cpu")
    with pytest.raises(UnsupportedModelError, match='"is_causal": false'):
        encode(edit(folder, is_causal=False), ["a"])
    with pytest.raises(UnsupportedModelError, match='"local_attention": 1, of which a layer sees nothing'):
        encode(edit(folder, is_causal=True, local_attention=1, sliding_window=None), ["a"])


def test_live_a_window_that_is_said_twice(tmp_path: Path) -> None:
    texts = random_texts(80)
    folder = edit(make("modernbert", tmp_path), sliding_window=3)
    assert difference(encode(folder, texts), oracle(folder).encode(texts, normalize_embeddings=True)) <= TOLERANCE
