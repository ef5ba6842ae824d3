"""Prometheus's text: counters have text-embeddings-inference's names, models their own."""

import pytest

from mlx_embed import EmbeddingModel
from tests.mlx_embed.serve.harness import serving


@pytest.mark.parametrize("name", ["grand_total", "newly_created"])
def test_names(name: str, encoder: EmbeddingModel) -> None:
    with serving({name: encoder}) as running:
        assert running.post("/embed", {"inputs": "the wing"}).status_code == 200
        text = running.get("/metrics").text
    for line in (f'mlx_embed_tokens{{model="{name}"}} 4.0', f'te_queue_size{{model="{name}"}} 0.0'):
        assert f"\n{line}\n" in text
    assert '\nte_request_success{method="/embed"} 1.0\n' in text
    for more in ("_total{", "_total ", "_created{", "_created "):
        assert more not in text
