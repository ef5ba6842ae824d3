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
