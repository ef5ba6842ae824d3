#!/usr/bin/env python3
"""Time models pooled by the first token with a last layer that computes those tokens alone, and with one of all tokens.

    python scripts/bench_last_layer.py [--device gpu --dtype float16] [--shape 32x128] [--json FILE]

Needs torch and transformers beside this package, which make the checkpoints: of random weights, in the shapes of models
that are pooled so. From token ids to vectors; both ways are of one process, and take turns. Figures are medians; beside
them is how many times as fast the first way is, and the lowest cosine of both ways' vectors.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.bench_cpu import interleaved, processor, saved, uniform_batch, with_pooling

# Layers, hidden size, heads and inner size.
MODELS = {
    "MiniLM-L6 reranker": (6, 384, 12, 1536),
    "bge-small": (12, 384, 12, 1536),
    "bge-base": (12, 768, 12, 3072),
}
SHAPES = ("8x32", "32x128", "8x512")
ALONE, ALL = "the first tokens alone", "all tokens"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), help="texts x tokens")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write every figure here")
    options = parser.parse_args()

    import numpy as np
    from transformers import BertConfig, BertModel

    from mlx_embed import EmbeddingModel

    print(f"{processor()}, {options.device}, {options.dtype}; medians of {options.rounds} rounds\n")
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for name in options.model:
            depth, hidden, heads, inner = MODELS[name]
            config = BertConfig(
                num_hidden_layers=depth, hidden_size=hidden, num_attention_heads=heads, intermediate_size=inner
            )
            folder = with_pooling(saved(BertModel(config, add_pooling_layer=False), Path(work) / name), hidden, "cls")
            models = {
                way: EmbeddingModel.from_pretrained(folder, device=options.device, dtype=options.dtype)
                for way in (ALONE, ALL)
            }
            models[ALL].engine.encoder.takes_rows = False  # type: ignore[attr-defined]
            for shape in options.shape:
                batch, length = map(int, shape.split("x"))
                packed = uniform_batch(np.random.default_rng(0).integers(1000, 30000, (batch, length)))
                runs = {
                    way: lambda model=model, packed=packed: next(model.engine.run([packed], model.head()))[1]
                    for way, model in models.items()
                }
                one, other = (run() for run in runs.values())
                times = interleaved(runs, options.rounds)
                row = {
                    "work": f"{name} {shape}",
                    "ms": times,
                    "ratio": times[ALL] / times[ALONE],
                    "cosine": float(np.sum(one * other, axis=1).min()),
                }
                rows.append(row)
                each = ", ".join(f"{way} {ms:.3f} ms" for way, ms in times.items())
                print(f"{row['work']:28} {each}: {row['ratio']:.3f}x, cosine {row['cosine']:.6f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"processor": processor(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
