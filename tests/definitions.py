"""Models that transformers does not have, written out in numpy from their definitions, one text at a time.

jina-embeddings-v2: Günther et al., 2023, and the authors' code as text-embeddings-inference 1.8 (jina.rs, jina_code.rs)
and llama.cpp (jina-bert-v2) have it. nomic-embed-text-v2-moe: Nussbaum and Duderstadt, 2025, as nomic.rs and llama.cpp
(nomic-bert-moe) have it.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from tokenizers import Tokenizer

Rows = np.ndarray[Any, np.dtype[np.float64]]


class Defined:
    """A folder's model by its definition: mean pooled."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        arrays = mx.load(str(folder / "model.safetensors"))
        self.weights = {name: np.array(x.astype(mx.float32), dtype=np.float64) for name, x in arrays.items()}
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(64)
        self.hidden: Callable[..., Rows] = self._jina if self.config["model_type"] == "bert" else self._nomic

    def encode(self, texts: Sequence[str], batch_size: int = 1, normalize_embeddings: bool = False) -> np.ndarray:
        """[N, D] float32."""
        vectors = np.stack([self.hidden(self.tokenizer.encode(text).ids).mean(axis=0) for text in texts])
        if normalize_embeddings:
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)

    def _norm(self, x: Rows, name: str, eps: float) -> Rows:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def _linear(self, x: Rows, name: str) -> Rows:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def _attend(self, q: Rows, k: Rows, v: Rows, heads: int, bias: Rows | float) -> Rows:
        split = [x.reshape(len(x), heads, -1).transpose(1, 0, 2) for x in (q, k, v)]
        scores = split[0] @ split[1].transpose(0, 2, 1) / math.sqrt(split[0].shape[-1]) + bias
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = weights / weights.sum(axis=-1, keepdims=True) @ split[2]
        return mixed.transpose(1, 0, 2).reshape(len(q), -1)

    def _jina(self, ids: list[int], types: Sequence[int] = (0,)) -> Rows:
        config, eps, heads = self.config, self.config["layer_norm_eps"], self.config["num_attention_heads"]
        table = "embeddings.token_type_embeddings.weight"
        x = self._norm(
            self.weights["embeddings.word_embeddings.weight"][ids] + self.weights[table][list(types)],
            "embeddings.LayerNorm",
            eps,
        )
        places = np.arange(len(ids))
        bias = -np.array(slopes(heads))[:, None, None] * np.abs(places - places[:, None])
        for index in range(config["num_hidden_layers"]):
            layer = f"encoder.layer.{index}"
            q, k, v = (self._linear(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
            code = f"{layer}.layer_norm_1.weight" in self.weights
            if code:
                q = self._norm(q, f"{layer}.attention.self.layer_norm_q", eps)
                k = self._norm(k, f"{layer}.attention.self.layer_norm_k", eps)
            attended = self._linear(self._attend(q, k, v, heads, bias), f"{layer}.attention.output.dense")
            attended = self._norm(attended + x, f"{layer}.attention.output.LayerNorm", eps)
            if code:
                x = self._norm(x + attended, f"{layer}.layer_norm_1", eps)
                value, gate = np.split(self._linear(x, f"{layer}.mlp.up_gated_layer"), 2, axis=1)
                x = self._norm(
                    self._linear(value * gelu(gate), f"{layer}.mlp.down_layer") + x, f"{layer}.layer_norm_2", eps
                )
            else:
                gate, value = np.split(self._linear(attended, f"{layer}.mlp.gated_layers"), 2, axis=1)
                down = self._linear(value * gelu(gate), f"{layer}.mlp.wo")
                x = self._norm(down + attended, f"{layer}.mlp.layernorm", eps)
        return x

    def _nomic(self, ids: list[int]) -> Rows:
        config, eps, heads = self.config, self.config["layer_norm_epsilon"], self.config["n_head"]
        types = self.weights["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(self.weights["embeddings.word_embeddings.weight"][ids] + types, "emb_ln", eps)
        for index in range(config["n_layer"]):
            layer = f"encoder.layers.{index}"
            q, k, v = np.split(self._linear(x, f"{layer}.attn.Wqkv"), 3, axis=1)
            q, k = (rotated(part, heads, config["rotary_emb_base"]) for part in (q, k))
            attended = self._linear(self._attend(q, k, v, heads, 0.0), f"{layer}.attn.out_proj")
            x = self._norm(x + attended, f"{layer}.norm1", eps)
            if index % config["moe_every_n_layers"] == 1:
                out = self._experts(x, f"{layer}.mlp")
            else:
                out = self._linear(gelu(self._linear(x, f"{layer}.mlp.fc1")), f"{layer}.mlp.fc2")
            x = self._norm(x + out, f"{layer}.norm2", eps)
        return x

    def _experts(self, x: Rows, place: str) -> Rows:
        shape = self.config["num_experts"], self.config["n_inner"], self.config["n_embd"]
        w1, w2 = (self.weights[f"{place}.experts.mlp.{name}"].reshape(shape) for name in ("w1", "w2"))
        logits = self._linear(x, f"{place}.router.layer")
        weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        out = np.zeros_like(x)
        for row, token in enumerate(x):
            for expert in np.argsort(-weights[row])[: self.config["moe_top_k"]]:
                out[row] += weights[row, expert] * (gelu(token @ w1[expert].T) @ w2[expert])
        return out + self.weights[f"{place}.experts.bias"]


def slopes(heads: int) -> list[float]:
    """ALiBi's, by the recursion of its paper's code."""
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start ** (i + 1) for i in range(heads)]
    below = 2 ** math.floor(math.log2(heads))
    return slopes(below) + slopes(2 * below)[0::2][: heads - below]


def gelu(x: Rows) -> Rows:
    """With the error function."""
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def rotated(x: Rows, heads: int, base: float) -> Rows:
    """RoPE, the halves of each head being the pairs: [T, hidden]."""
    split = x.reshape(len(x), heads, 2, -1)
    size = split.shape[-1]
    angles = np.outer(np.arange(len(x)), base ** -(np.arange(size) / size))[:, None]
    first, second = split[:, :, 0], split[:, :, 1]
    turned = [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)]
    return np.stack(turned, axis=2).reshape(x.shape)
