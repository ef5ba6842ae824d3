"""EmbeddingGemma 2 as it lies on the hub: text_config within config.json, other modalities beside the text's."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CheckpointError, EmbeddingModel, UnsupportedModelError
from mlx_embed.architectures import ARCHITECTURES
from tests.checkpoints import NORMALIZE, read, rename
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

TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
OTHERS = dict.fromkeys(("image", "audio", "video"), TEXT)


def whole(folder: Path, **more: object) -> Path:
    """With a tower for pictures, tokens for media, and sentence-transformers' files."""
    rename(make("embedding_gemma2", folder), ("^", "model.language_model."))
    tower = {
        "model.vision_tower.patch.weight": mx.zeros((3, 3)),
        "model.embed_vision.embedding_projection.weight": mx.zeros((3, 3)),
    }
    mx.save_safetensors(str(folder / "model.safetensors"), read(folder) | tower)
    text = json.loads((folder / "config.json").read_text())
    text["per_layer_config"] = {f"{int(key):02}": value for key, value in text["per_layer_config"].items()}
    config = {"model_type": "embedding_gemma2", "text_config": text, "vision_config": {"model_type": "gemma4_vision"}}
    (folder / "config.json").write_text(json.dumps(config | more))
    return folder


def with_modalities(folder: Path, modalities: dict[str, object]) -> Path:
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"transformer_task": "feature-extraction", "modality_config": modalities})
    )
    kinds = {"Transformer": "", "Pooling": "1_Pooling", NORMALIZE[0]: "2_Normalize"}
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"embedding_dimension": 64, "pooling_mode": "mean"}))
    return folder


def test_the_text_encoder_of_a_whole_model(tmp_path: Path) -> None:
    texts, expected = golden("embedding_gemma2")
    assert difference(encode(whole(tmp_path), texts), expected) <= TOLERANCE


def test_tokens_of_media_count_as_padding(tmp_path: Path) -> None:
    """There is nothing to put in their place."""
    plain = encode(whole(tmp_path / "a"), ["the [PAD] wing", "the [MASK] wing"])
    for engine in ("auto", "reference"):
        found = encode(whole(tmp_path / engine, image_token_id=4), ["the [MASK] wing"], engine=engine)
        assert difference(found, plain[:1]) <= TOLERANCE
    assert difference(plain[:1], plain[1:]) > 1e-3


def test_modalities_besides_text(tmp_path: Path) -> None:
    folder = with_modalities(whole(tmp_path / "a"), {"text": TEXT, **OTHERS})
    texts, expected = golden("embedding_gemma2")
    model = EmbeddingModel.from_pretrained(folder, device="cpu")
    assert model.dimension == 64
    assert difference(model.encode(texts), expected) <= TOLERANCE
    for modalities in (OTHERS, {"text": {**TEXT, "method": "get_text_features"}}, {"text": TEXT, "message": TEXT}):
        with pytest.raises(UnsupportedModelError, match="modality_config"):
            EmbeddingModel.from_pretrained(
                with_modalities(whole(tmp_path / str(len(modalities)) / str(id(modalities))), modalities), device="cpu"
            )


def test_live_whole(tmp_path: Path) -> None:
    """The whole class of transformers, without towers."""
    torch = pytest.importorskip("torch", reason="PyTorch oracles are not installed")
    transformers = needs_transformers("embedding_gemma2")
    folder = whole(tmp_path, image_token_id=4, audio_config=None, vision_config=None, video_token_id=110)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    own = EmbeddingModel.from_pretrained(folder, device="cpu")
    for text in [*random_texts(12), "the [MASK] wing"]:
        ids = own.tokenizer.encode([text]).ids[0]
        with torch.no_grad():
            hidden = model(
                input_ids=torch.tensor(np.array(ids)[None].astype(np.int64)), attention_mask=torch.ones(1, len(ids))
            )
        assert np.abs(own.encode(text) - hidden.last_hidden_state[0].mean(dim=0).numpy()).max() <= 1e-4


def test_live_sizes_of_the_real_model() -> None:
    """What transformers derives of the least that config.json may say."""
    transformers = needs_transformers("embedding_gemma2_text")
    theirs = transformers.EmbeddingGemma2TextConfig()
    stated = {"vocab_size": 262_144, "hidden_size": 512, "num_hidden_layers": 24, "num_attention_heads": 4}
    stated |= {"intermediate_size": 2048, "max_position_embeddings": 262_144}
    ours = ARCHITECTURES["embedding_gemma2_text"].Config.from_dict(stated)
    written = json.loads(theirs.to_json_string(use_diff=False))
    assert ours == ARCHITECTURES["embedding_gemma2_text"].Config.from_dict(written)


@pytest.mark.parametrize("dimension", [32, 64])
def test_pooling_may_say_the_width_of_the_layers(dimension: int, tmp_path: Path) -> None:
    """sentence-transformers writes hidden_size there, of a folder without modules, though vectors are wider."""
    folder = with_modalities(make("embedding_gemma2", tmp_path), {"text": TEXT})
    pooling = {"embedding_dimension": dimension, "pooling_mode": "mean"}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    texts, expected = golden("embedding_gemma2")
    assert difference(encode(folder, texts), expected) <= TOLERANCE
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling | {"embedding_dimension": 16}))
    with pytest.raises(CheckpointError, match="16, but the module before it gives 64 dimensions"):
        encode(folder, texts)


def test_live_saved_anew_by_sentence_transformers(tmp_path: Path) -> None:
    model = oracle(make("embedding_gemma2", tmp_path / "bare"))
    model.save_pretrained(str(tmp_path / "saved"))
    texts, expected = golden("embedding_gemma2")
    assert difference(encode(tmp_path / "saved", texts), expected) <= TOLERANCE
