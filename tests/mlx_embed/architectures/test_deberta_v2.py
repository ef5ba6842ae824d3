"""DeBERTa's distances, also at their real number of buckets, which tiny checkpoints do not reach."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from tests.checkpoints import encoder
from tests.mlx_embed.architectures.cases import TOLERANCE, make, needs_transformers

LENGTHS = (1, 20, 300, 512)


def test_a_graph_takes_new_weights(tmp_path: Path) -> None:
    model = EmbeddingModel.from_pretrained(make("deberta-v2", tmp_path), device="cpu", engine="reference")
    ours, given = model.engine.encoder, (mx.arange(9), mx.array([0, 9], dtype=mx.int32), 9)
    before = np.array(ours(*given))
    ours.distances.rows.weight = -ours.distances.rows.weight
    assert np.abs(np.array(ours(*given)) - before).max() > 0.01


def test_memory_grows_with_the_texts(tmp_path: Path) -> None:
    """Scores are of the tokens of a text, and not of a batch."""
    model = EmbeddingModel.from_pretrained(make("deberta-v2", tmp_path), device="cpu", engine="reference")
    needed = []
    for texts in (16, 64):
        flat, starts = mx.zeros((texts * 32,), dtype=mx.int32), mx.arange(0, texts * 32 + 1, 32)
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(model.engine.encoder(flat, starts.astype(mx.int32), 32))
        needed.append(mx.get_peak_memory() - before)
    assert needed[1] < 5 * needed[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"pos_att_type": ["p2c", "c2p"], "share_att_key": True, "position_buckets": 256},
        {"pos_att_type": ["c2p"], "position_buckets": 256, "max_relative_positions": 200},
        {"pos_att_type": ["p2c"], "position_buckets": -1, "max_relative_positions": 100},
        {"pos_att_type": []},
    ],
    ids=["v3", "to key", "to query", "none"],
)
def test_live_at_any_length(changes: dict[str, Any], tmp_path: Path) -> None:
    transformers = needs_transformers("deberta-v2")
    torch = pytest.importorskip("torch", reason='PyTorch oracles are not installed: pip install ".[oracles]"')
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64}
    config = transformers.DebertaV2Config(vocab_size=300, relative_attention=True, **sizes, **changes)
    theirs = transformers.DebertaV2Model(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    encoder("deberta-v2", tmp_path)  # for its tokenizer
    theirs.save_pretrained(tmp_path)
    ids = [np.random.default_rng(n).integers(0, 300, n, dtype=np.int32) for n in LENGTHS]
    with torch.no_grad():
        expected = [theirs(torch.from_numpy(row)[None]).last_hidden_state[0].numpy() for row in ids]
    flat, starts = np.concatenate(ids), np.cumsum([0, *LENGTHS]).astype(np.int32)
    for engine in ("native", "reference"):
        ours = EmbeddingModel.from_pretrained(tmp_path, device="cpu", engine=engine, dtype="float32").engine.encoder
        given = (flat, starts) if engine == "native" else (mx.array(flat), mx.array(starts))
        for _ in range(2):  # natively the second time with what was kept of the first
            found = np.array(ours(*given, max(LENGTHS)))
            for start, end, rows in zip(starts, starts[1:], expected, strict=False):
                scale = np.linalg.norm(rows, axis=1).max()
                assert np.abs(found[start:end] - rows).max() / scale <= TOLERANCE
