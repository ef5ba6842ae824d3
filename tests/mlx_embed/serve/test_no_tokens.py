"""Texts without any token, of models whose tokenizers put none around a text."""

from pathlib import Path

import numpy as np

from mlx_embed import CrossEncoder, EmbeddingModel
from tests.checkpoints import NORMALIZE, pooling, reranker
from tests.mlx_embed.serve.harness import serving
from tests.mlx_embed.test_no_tokens import embedder, without_special_tokens


def test_over_http(tmp_path: Path) -> None:
    """Zeros for a text, and for a pair an error that names its place, which leaves other requests alone."""
    model = EmbeddingModel.from_pretrained(embedder(tmp_path / "a", [pooling("lasttoken"), NORMALIZE]), device="cpu")
    folder = reranker("bert", 1, tmp_path / "b")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    scorer = CrossEncoder.from_pretrained(without_special_tokens(folder), device="cpu")
    with serving({"a": model}, {"b": scorer}) as running:
        found = np.array(running.post("/embed", {"inputs": [" ", "wing", "  "]}).json())
        assert found.any(axis=1).tolist() == [False, True, False]
        assert not np.array(running.post("/embed", {"inputs": " "}).json()).any()
        assert running.post("/embed_all", {"inputs": [" ", "wing"]}).json()[0] == []
        assert running.post("/embed_all", {"inputs": " "}).json() == [[]]
        refused = running.post("/v1/rerank", {"query": " ", "documents": ["wing", "  "]})
        assert refused.status_code == 422
        assert "documents[1]" in refused.text
        assert running.post("/v1/rerank", {"query": " ", "documents": ["wing"]}).status_code == 200
