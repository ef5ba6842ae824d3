"""The side of `bench_gpu.py` for decoders: packed, and by mlx-lm's code on padded blocks, on the same weights."""

import argparse
import importlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

VOCABULARY = 30522
Figures = dict[str, float]

# Qwen3-Embedding-0.6B, but for a smaller vocabulary, of which a text reads a row a token.
SHAPE = {
    "model_type": "qwen3",
    "vocab_size": VOCABULARY,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "max_position_embeddings": 32768,
    "rope_theta": 1_000_000.0,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
}


def mlx_lm_code(name: str) -> Any:
    """One of mlx-lm's model files, without mlx_lm itself, which imports transformers."""
    folder = importlib.util.find_spec("mlx_lm")
    assert folder is not None
    assert folder.origin is not None
    models = ModuleType("mlx_lm_models")
    models.__path__ = [str(Path(folder.origin).parent / "models")]
    sys.modules[models.__name__] = models
    return importlib.import_module(f"{models.__name__}.{name}")


def side(work: Path, options: argparse.Namespace) -> Figures:
    """A decoder of Qwen3-Embedding-0.6B's shape in bfloat16, from token ids on the host to vectors on the host.

    Packed, by this package, and by mlx-lm's own code compiled on blocks padded to their longest text, on the same
    weights and in turns.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from mlx_embed.architectures import ops, qwen3
    from mlx_embed.architectures.ops import graph
    from mlx_embed.checkpoint.modules import Pooling
    from mlx_embed.embedding_head import EmbeddingHead
    from mlx_embed.engine.graph import GraphEngine

    config = qwen3.Config.from_dict(SHAPE)
    packed = qwen3.Model(config)
    packed.set_dtype(mx.bfloat16)
    mx.eval(packed.parameters())
    peer = mlx_lm_code("qwen3")
    blocks = peer.Qwen3Model(peer.ModelArgs.from_dict(SHAPE | {"tie_word_embeddings": True}))
    names = {new: old for old, new in reversed(qwen3.RENAMES)}
    query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    inner, weights = config.intermediate_size, []
    split = {
        "qkv": (("q", query), ("k", query + key), ("v", query + 2 * key)),
        "up_gate": (("up", inner), ("gate", 2 * inner)),
    }
    for name, weight in tree_flatten(packed.parameters()):
        whole = next((whole for whole in split if f".{whole}." in name), None)
        start = 0
        for part, end in split.get(whole or "", ((None, len(weight)),)):
            own = name if part is None else name.replace(f".{whole}.", f".{part}.")
            for new, old in names.items():
                own = own.replace(new, old)
            weights.append((own, weight[start:end]))
            start = end
    blocks.load_weights(weights)
    mx.eval(blocks.parameters())
    graph.lay_out(packed)
    engine = GraphEngine(packed, mx.default_device(), kernels=True, compiled=True)
    head = engine.head(EmbeddingHead(Pooling(("lasttoken",)), (), 0, config.hidden_size, True))

    def last(ids: mx.array, ends: mx.array) -> mx.array:
        hidden = blocks(ids)
        return ops.normalize(hidden[mx.arange(len(ends)), ends].astype(mx.float32))

    compiled = mx.compile(last)

    def by_blocks(texts: list[np.ndarray], budget: int) -> np.ndarray:
        """Longest first, in blocks of so many tokens, four widths to each doubling; the next runs while one is read."""
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        out = np.empty((len(texts), config.hidden_size), dtype=np.float32)
        running: list[tuple[list[int], mx.array]] = []
        start = 0
        while start < len(order) or running:
            if start < len(order):
                longest = len(texts[order[start]])
                quarter = max(1 << max((longest - 1).bit_length() - 3, 0), 4)
                width = -(-longest // quarter) * quarter
                rows = max(budget // width, 1)
                here = order[start : start + rows]
                block = np.zeros((rows, width), dtype=np.int32)
                for row, text in enumerate(here):
                    block[row, : len(texts[text])] = texts[text]
                ends = np.array([len(texts[i]) - 1 for i in here] + [0] * (rows - len(here)), dtype=np.int32)
                vectors = compiled(mx.array(block), mx.array(ends))
                mx.async_eval(vectors)
                running.append((here, vectors))
                start += rows
            if len(running) > 1 or start >= len(order):
                done, vectors = running.pop(0)
                out[done] = np.array(vectors)[: len(done)]
        return out

    def by_packs(texts: list[np.ndarray], budget: int) -> np.ndarray:
        return engine.gather(engine.batches(texts, budget), head, lambda _: None).result()

    rng = np.random.default_rng(0)
    lengths = {
        "2048 x 128": [128] * 2048,
        "4096 ragged, 3 to 512": np.clip(rng.lognormal(4.3, 0.9, size=4096), 3, 512).astype(int).tolist(),
    }
    figures: Figures = {}
    for label, each in lengths.items():
        texts = [rng.integers(5, VOCABULARY, size=n).astype(np.int32) for n in each]
        ways: dict[str, Callable[[], np.ndarray]] = {
            f"mlx-lm's code, blocks of {budget} tokens": partial(by_blocks, texts, budget) for budget in options.blocks
        }
        ways |= {f"packed, {budget} tokens": partial(by_packs, texts, budget) for budget in options.budgets}
        vectors = {name: way() for name, way in ways.items()}
        expected, *others = vectors.values()
        figures[f"{label}: tokens"] = sum(each)
        figures[f"{label}: least cosine with mlx-lm's"] = min(float((v * expected).sum(axis=1).min()) for v in others)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(6):
            for name, way in list(ways.items())[:: 1 if turn % 2 else -1]:
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
        for name, times in seconds.items():
            figures[f"{label}: {name}, texts/s"] = len(each) / statistics.median(times[1:])
    return figures
