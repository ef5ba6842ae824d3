"""Token ids for which a model has no embedding."""

import json
from pathlib import Path

import pytest

from mlx_embed import CheckpointError, EmbeddingModel


@pytest.mark.parametrize(("largest", "fits"), [(119, True), (120, False), (500, False)])
def test_a_tokenizer_of_another_checkpoint(largest: int, fits: bool, checkpoint: Path) -> None:
    """Of 120 embeddings the last has the id 119."""
    path = checkpoint / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["zebra"] = largest
    path.write_text(json.dumps(tokenizer))
    if fits:
        assert EmbeddingModel.from_pretrained(checkpoint, device="cpu").encode("zebra").shape == (32,)
        return
    with pytest.raises(CheckpointError, match=f"has token ids up to {largest}, but"):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")
