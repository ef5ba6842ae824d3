#!/usr/bin/env python3
"""Time encoders whose attention is not BERT's on the native CPU kernels beside PyTorch, at random weights.

    python scripts/bench_encoders.py [--model DeBERTa-v3-small] [--shape 8x128] [--dtype float32] [--json FILE]

Needs torch, transformers and sentence-transformers beside this package; `scripts/bench_cpu.py` makes such an
environment. Forward, mean pooling and normalisation from token ids; both sides have the same threads, and take turns.
Figures are medians, ratios are native float32's time by PyTorch's, below 1 is faster; beside them is the lowest cosine.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.bench_cpu import cosines, interleaved, pooled, processor, report, saved, uniform_batch

MODELS = ("DeBERTa-v3-small", "mxbai-rerank-base-v1", "gtr-t5-base", "ALBERT-base")
NATIVE = {"float32": "native", "bfloat16": "native bf16", "int8": "native int8"}
SHAPES = ("1x16", "8x128", "8x512")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), help="texts x tokens")
    parser.add_argument("--dtype", nargs="+", choices=NATIVE, default=["float32"], help="of the kernels; float32 first")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every figure here")
    options = parser.parse_args()

    import numpy as np
    import torch

    from custom_kernels import cpu
    from mlx_embed import EmbeddingModel

    if not cpu.available():
        sys.exit(cpu.why_unavailable())
    torch.set_num_threads(cpu.num_threads())
    print(f"{processor()}, {cpu.num_threads()} threads, {cpu.instruction_set()}; medians of {options.rounds} rounds\n")
    rows = []
    with tempfile.TemporaryDirectory() as work, torch.inference_mode():
        for name in options.model:
            model = encoder(name)
            folder = saved(model, Path(work) / name)
            native = {NATIVE[d]: EmbeddingModel.from_pretrained(folder, device="cpu", dtype=d) for d in options.dtype}
            module = pooled(model)
            heads = {key: each.head() for key, each in native.items()}
            for shape in options.shape:
                batch, length = map(int, shape.split("x"))
                ids = np.random.default_rng(0).integers(1000, 30000, (batch, length))
                packed, tensors = uniform_batch(ids), (torch.from_numpy(ids), torch.ones(ids.shape, dtype=torch.long))
                runs: dict[str, Any] = {
                    key: lambda engine=each.engine, head=heads[key], packed=packed: next(engine.run([packed], head))[1]
                    for key, each in native.items()
                }
                runs["PyTorch"] = lambda module=module, tensors=tensors: module(*tensors).numpy()
                near = cosines(runs, runs["PyTorch"]())
                rows.append(report(f"{name} {shape}", interleaved(runs, options.rounds), near))
    if options.json:
        machine = {"processor": processor(), "threads": cpu.num_threads(), "instructions": cpu.instruction_set()}
        options.json.write_text(json.dumps({"machine": machine, "rounds": options.rounds, "rows": rows}, indent=2))


def encoder(name: str) -> Any:
    """An encoder of the shape of the model that is named, with random weights."""
    from transformers import AlbertConfig, AlbertModel, DebertaV2Config, DebertaV2Model, T5Config, T5EncoderModel

    if name == "gtr-t5-base":
        return T5EncoderModel(T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)).eval()
    base = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
    if name == "ALBERT-base":
        return AlbertModel(AlbertConfig(vocab_size=30522, **base), add_pooling_layer=False).eval()
    return DebertaV2Model(
        DebertaV2Config(
            num_hidden_layers=6 if name == "DeBERTa-v3-small" else 12,
            relative_attention=True,
            position_buckets=256,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            type_vocab_size=0,
            **base,
        )
    ).eval()


if __name__ == "__main__":
    main()
