"""Decoders: checkpoints of mlx-lm's, what is compiled, what a token sees, and the rotary positions of scaled models."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import EmbeddingModel, convert
from mlx_embed.batching import packed_shapes
from tests.checkpoints import edit, read, rename
from tests.mlx_embed.architectures.cases import TOLERANCE, difference, encode, golden, make


def test_head_dim_need_not_be_given(tmp_path: Path) -> None:
    texts, expected = golden("mistral")
    assert difference(encode(edit(make("mistral", tmp_path), head_dim=None), texts), expected) <= TOLERANCE


@pytest.mark.parametrize("metadata", [{"format": "pt"}, {"format": "mlx"}], ids=["transformers", "mlx-lm"])
def test_a_prefix_and_a_head_are_left_out(metadata: dict[str, str], tmp_path: Path) -> None:
    texts, expected = golden("qwen3")
    rename(make("qwen3", tmp_path), ("^", "model."))
    tensors = read(tmp_path) | {"lm_head.weight": mx.zeros((120, 32))}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors, metadata)
    assert difference(encode(tmp_path, texts), expected) <= TOLERANCE


def test_a_checkpoint_that_mlx_lm_quantized(tmp_path: Path) -> None:
    convert(make("qwen3", tmp_path / "a"), tmp_path / "b", quantize=4, group_size=32)
    expected = encode(tmp_path / "b", ["the wing", "heat"])
    tensors = {f"model.{name}": tensor for name, tensor in read(tmp_path / "b").items()}
    head = {"lm_head.weight": mx.zeros((120, 4), dtype=mx.uint32), "lm_head.scales": mx.zeros((120, 1))}
    mx.save_safetensors(str(tmp_path / "b/model.safetensors"), tensors | head, {"format": "mlx"})
    edit(tmp_path / "b", quantization={"group_size": 32, "bits": 4, "mode": "affine"})
    assert (encode(tmp_path / "b", ["the wing", "heat"]) == expected).all()


def test_compiled_graphs_are_those_stated(tmp_path: Path) -> None:
    model = EmbeddingModel.from_pretrained(make("gemma3_text", tmp_path), device="cpu", engine="graph")
    seen = set()
    encoder = model.engine.encoder

    def traced(input_ids: mx.array, cu_seqlens: mx.array, max_seqlen: int) -> mx.array:
        seen.add((input_ids.shape[0], cu_seqlens.shape[0] - 1, max_seqlen))
        return encoder(input_ids, cu_seqlens, max_seqlen)

    model.engine.encoder = traced
    rng = np.random.default_rng(0)
    for _ in range(5):
        model.encode(["wing " * int(n) for n in rng.integers(1, 60, size=100)], batch_tokens=256)
    assert 0 < len(seen) <= 20
    assert seen <= packed_shapes(256, 64)


@pytest.mark.parametrize("length", [5, 6, 9])
def test_a_token_sees_those_within_the_window(length: int, tmp_path: Path) -> None:
    """Of one layer: through several a token learns of more."""
    model = EmbeddingModel.from_pretrained(
        edit(make("mistral", tmp_path), num_hidden_layers=1, sliding_window=5), device="cpu"
    )

    def last(*changed: int) -> np.ndarray:
        ids = [40 if place in changed else 10 + place for place in range(length)]
        ((_, rows),) = model.engine.run(model.engine.batches([ids], 4096), model.head())
        return np.array(rows[0])

    whole = last()
    assert difference(last(length - 5), whole) > 100 * TOLERANCE
    assert difference(last(*range(length - 5)), whole) <= TOLERANCE
