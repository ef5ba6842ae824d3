"""A feed-forward of experts: quantized, in other dtypes, and by numbers that can be counted."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import EmbeddingModel, convert
from mlx_embed.architectures import ops
from mlx_embed.architectures.experts import Experts
from mlx_embed.architectures.ops import native
from tests.definitions import gelu
from tests.mlx_embed.architectures.cases import WAYS, encode, golden, least_cosine, make

NAME = "nomic_bert, experts"


def random_experts(count: int, top_k: int, hidden: int = 32, inner: int = 40) -> Experts:
    experts = Experts(hidden, inner, count, top_k, "gelu")
    rng = np.random.default_rng()
    for part in (experts.router, experts.up, experts.down):
        part.weight = mx.array(rng.normal(size=part.weight.shape).astype(np.float32))
    experts.down.bias = mx.array(rng.normal(size=hidden).astype(np.float32))
    return experts


def by_hand(x: np.ndarray, experts: Experts) -> np.ndarray:
    count = experts.up.count
    router, w1, w2, bias = (
        np.array(part, dtype=np.float64)
        for part in (experts.router.weight, experts.up.weight, experts.down.weight, experts.down.bias)
    )
    logits = x @ router.T
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    w1, w2 = w1.reshape(count, -1, w1.shape[1]), w2.reshape(count, -1, w2.shape[1])
    out = np.zeros_like(x, dtype=np.float64)
    for row, token in enumerate(x):
        for expert in np.argsort(weights[row])[-experts.top_k :]:
            out[row] += weights[row, expert] * (gelu(w1[expert] @ token) @ w2[expert])
    return out + bias


@pytest.mark.parametrize(("count", "top_k", "tokens"), [(8, 2, 17), (3, 3, 5), (5, 1, 1), (4, 2, 0)])
def test_both_twins(count: int, top_k: int, tokens: int) -> None:
    """Experts without tokens, and all experts for every token, too."""
    experts = random_experts(count, top_k)
    x = np.random.default_rng().normal(size=(tokens, 32)).astype(np.float32)
    expected = by_hand(x, experts)
    arguments = experts.router, experts.up, experts.down, "gelu", top_k
    found = [np.array(ops.experts(mx.array(x), *arguments))]
    if cpu.available():
        native.lay_out(experts)
        found.append(ops.experts(x, experts.router, experts.up, experts.down, "gelu", top_k))
    for out in found:
        assert out.shape == expected.shape
        assert np.abs(out - expected).max(initial=0) <= 2e-5 * max(np.abs(expected).max(initial=0), 1)


@pytest.mark.parametrize(("bits", "least"), [(8, 0.999), (4, 0.9)])
def test_quantized(bits: int, least: float, tmp_path: Path) -> None:
    texts, expected = golden(NAME)
    convert(make(NAME, tmp_path / "a"), tmp_path / "b", quantize=bits, group_size=32)
    stored = mx.load(str(tmp_path / "b/model.safetensors"))
    assert stored["layers.1.mlp.up.weight"].dtype == stored["layers.1.mlp.down.weight"].dtype == mx.uint32
    assert stored["layers.1.mlp.router.weight"].dtype != mx.uint32
    found = {way: encode(tmp_path / "b", texts, **options) for way, options in WAYS.items()}
    assert all(least_cosine(vectors, expected) >= least for vectors in found.values())
    assert all(np.abs(vectors - found["reference"]).max() <= 1e-5 for vectors in found.values())
    assert least_cosine(encode(tmp_path / "b", texts, dtype="float16", engine="reference"), expected) >= least
    model = EmbeddingModel.from_pretrained(tmp_path / "b", device="cpu")
    assert f"{bits} bits" in repr(model)


@pytest.mark.parametrize(("options", "least"), [({"dtype": "bfloat16"}, 0.995), ({"dtype": "int8"}, 0.98)])
def test_narrow_linear_layers_on_a_cpu(options: dict[str, Any], least: float, tmp_path: Path) -> None:
    texts, expected = golden(NAME)
    assert least_cosine(encode(make(NAME, tmp_path), texts, **options), expected) >= least
