"""MPNet's relative position bias."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.architectures.mpnet import distance_buckets
from tests.checkpoints import edit
from tests.conftest import DATA
from tests.mlx_embed.architectures.cases import TOLERANCE, difference, golden, make


def test_buckets_are_those_of_transformers() -> None:
    with np.load(DATA / "tiny-mpnet.npz") as file:
        assert distance_buckets(512, 32).tolist() == file["buckets"].tolist()


def test_the_golden_vectors_need_the_bias(tmp_path: Path) -> None:
    """They must be such that a missing bias would show."""
    texts, expected = golden("mpnet")
    model = EmbeddingModel.from_pretrained(make("mpnet", tmp_path), device="cpu", engine="reference")
    bias = model.engine.encoder.relative_attention_bias
    bias.weight = mx.array(np.zeros(bias.weight.shape, dtype=np.float32))
    assert difference(model.encode(texts), expected) > 100 * TOLERANCE


@pytest.mark.parametrize("pad", [0, 3, None])
def test_positions_do_not_depend_on_the_pad_token(pad: int | None, tmp_path: Path) -> None:
    """MPNetEmbeddings of transformers counts from 2, whatever config.json calls pad_token_id."""
    texts, expected = golden("mpnet")
    edit(make("mpnet", tmp_path), pad_token_id=pad)
    assert difference(EmbeddingModel.from_pretrained(tmp_path, device="cpu").encode(texts), expected) <= TOLERANCE


def test_rows_beyond_the_buckets_are_not_used(tmp_path: Path) -> None:
    """MPNetEncoder of transformers has 32 buckets, whatever config.json calls relative_attention_num_buckets."""
    texts, expected = golden("mpnet")
    folder = edit(make("mpnet", tmp_path), relative_attention_num_buckets=64)
    file = str(folder / "model.safetensors")
    tensors = dict(mx.load(file))
    name = next(name for name in tensors if "relative_attention_bias" in name)
    tensors[name] = mx.concatenate([tensors[name], tensors[name] + 1])
    mx.save_safetensors(file, tensors)
    assert difference(EmbeddingModel.from_pretrained(folder, device="cpu").encode(texts), expected) <= TOLERANCE
