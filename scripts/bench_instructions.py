#!/usr/bin/env python3
"""Time the native CPU kernels on each instruction set of this processor, interleaved: AMX beside AVX-512, for example.

    python scripts/bench_instructions.py [--model FOLDER] [--threads 2] [--shapes 1x16 32x128] [--torch] [--json FILE]

Forward, mean pooling and normalisation from random token ids, of the folder's weights or of random ones of MiniLM's
shape; then the ops of one layer alone, with what they come to in operations a second. A side is a dtype by the
instructions that its products run on, and has its lowest cosine to float32. With `--torch` PyTorch computes the same
random weights (needs torch and transformers). Medians; ratios are float32's time by each one's.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from custom_kernels import cpu  # noqa: E402
from custom_kernels.cpu.library import library  # noqa: E402
from mlx_embed import EmbeddingModel  # noqa: E402
from scripts.bench_cpu import Run, cosines, interleaved, pooled, processor, report, uniform_batch  # noqa: E402

# Caps, as MLX_EMBED_CPU_ISA has them, from none downwards.
CAPS = ("", "avx512_bf16", "avx512_vnni", "avx2_vnni", "neon_dot")
DTYPES = ("float32", "bfloat16", "int8")
# Of MiniLM.
WIDTH, INNER, HEADS, LAYERS = 384, 1536, 12, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder of the native kernels' own kinds, of MiniLM's vocabulary")
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json, for random weights")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--shapes", nargs="+", default=["1x16", "32x128", "8x512"], metavar="TEXTSxTOKENS")
    parser.add_argument("--caps", nargs="+", choices=CAPS, default=["", "avx512_bf16"])
    parser.add_argument("--part", choices=["models", "ops", "all"], default="all")
    parser.add_argument("--torch", action="store_true", help="PyTorch too, on random weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a side in a round")
    parser.add_argument("--json", type=Path, help="write every figure here")
    options = parser.parse_args()
    if options.part != "ops" and options.model is None and options.tokenizer is None:
        parser.error("models need --model, or --tokenizer for one of random weights; --part ops needs neither")
    if not cpu.available():
        sys.exit(cpu.why_unavailable())
    if options.threads:
        cpu.set_num_threads(options.threads)
    print(f"{processor()}, {cpu.num_threads()} threads; medians of {options.rounds} rounds\n")
    shapes = [tuple(map(int, shape.split("x"))) for shape in options.shapes]
    rows = []
    if options.part != "ops":
        with tempfile.TemporaryDirectory() as work:
            rows += models(Path(work), shapes, options)
    if options.part != "models":
        rows += ops(shapes, options.caps)
    if options.json:
        machine = {"processor": processor(), "threads": cpu.num_threads()}
        options.json.write_text(json.dumps({"machine": machine, "rounds": options.rounds, "rows": rows}, indent=2))


@contextmanager
def capped(cap: str) -> Iterator[None]:
    """Within it, layers are laid out for no more than this; they keep what they were laid out for."""
    library().mlx_embed_choose(cap.encode())
    try:
        yield
    finally:
        library().mlx_embed_choose(b"")


def sides(caps: list[str]) -> Iterator[tuple[str, str, str]]:
    """A name, cap and dtype for each product that there is; what a cap does not change is there once."""
    seen = set()
    for cap in caps:
        with capped(cap):
            found = [(dtype, cpu.product(dtype)) for dtype in DTYPES]
        for dtype, product in found:
            if product and (dtype, product) not in seen:
                seen.add((dtype, product))
                yield "native" if dtype == "float32" else product, cap, dtype


def models(work: Path, shapes: list[tuple[int, ...]], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every shape, every side, PyTorch in float32 and bfloat16 where it was asked for."""
    folder, peers = options.model, {}
    if folder is None:
        folder, peers = random_model(work, options)
    native = {}
    for name, cap, dtype in sides(options.caps):
        with capped(cap):
            native[name] = EmbeddingModel.from_pretrained(folder, device="cpu", dtype=dtype)
    heads = {name: model.head() for name, model in native.items()}
    for texts, tokens in shapes:
        ids = np.random.default_rng(0).integers(1000, 30000, (texts, tokens))
        batch = uniform_batch(ids)
        runs: dict[str, Run] = {
            name: lambda engine=model.engine, head=heads[name], batch=batch: next(engine.run([batch], head))[1]
            for name, model in native.items()
        }
        runs |= {name: lambda peer=peer, ids=ids: peer(ids) for name, peer in peers.items()}
        exact = runs["native"]()
        near = cosines(runs, exact / np.linalg.norm(exact, axis=1, keepdims=True))
        yield report(f"{texts}x{tokens}", interleaved(runs, options.rounds, options.seconds), near)


def random_model(work: Path, options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """A checkpoint of MiniLM's shape with random weights, and PyTorch's ways to compute it."""
    import shutil

    import torch
    from transformers import BertConfig, BertModel

    torch.set_num_threads(cpu.num_threads())
    torch.manual_seed(0)
    config = BertConfig(hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=INNER)
    model = BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(work / "model")
    shutil.copy(options.tokenizer / "tokenizer.json", work / "model")
    if not options.torch:
        return work / "model", {}

    def runs(dtype: torch.dtype) -> Any:
        module = pooled(BertModel.from_pretrained(work / "model", dtype=dtype, add_pooling_layer=False).eval())

        @torch.inference_mode()
        def run(ids: Any) -> Any:
            tensors = torch.from_numpy(ids)
            return module(tensors, torch.ones_like(tensors)).float().numpy()

        return run

    return work / "model", {"PyTorch f32": runs(torch.float32), "PyTorch bf16": runs(torch.bfloat16)}


def ops(shapes: list[tuple[int, ...]], caps: list[str]) -> Iterator[dict[str, Any]]:
    """One layer's ops alone, and their operations a second."""
    numbers = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return numbers.standard_normal(shape, np.float32) / np.float32(shape[-1] ** 0.5)

    weights = [normal(n, k) for n, k in ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (INNER, WIDTH), (WIDTH, INNER))]
    norm = cpu.Norm(np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32), 1e-12)
    layers: dict[str, list[cpu.Linear]] = {}
    attends: dict[str, str] = {}
    for name, cap, dtype in sides(caps):
        with capped(cap):
            layers[name] = [cpu.Linear(weight, None, dtype) for weight in weights]
            attends[name] = "bfloat16" if dtype != "float32" and cpu.attends("bfloat16") else "float32"
    for texts, tokens in shapes:
        total = texts * tokens
        x, edges = normal(total, WIDTH), np.arange(0, total + 1, tokens, dtype=np.int32)
        qkv = {name: cpu.linear(x, layer[0]) for name, layer in layers.items()}
        parts: dict[str, tuple[float, dict[str, Run]]] = {
            "qkv": (
                6.0 * total * WIDTH * WIDTH,
                {name: lambda w=w, x=x: cpu.linear(x, w[0]) for name, w in layers.items()},
            ),
            "attention": (
                4.0 * total * tokens * WIDTH,
                {
                    name: lambda rows=rows, edges=edges, dtype=attends[name], tokens=tokens: cpu.attention(
                        rows, edges, HEADS, (WIDTH // HEADS) ** -0.5, max_seqlen=tokens, dtype=dtype
                    )
                    for name, rows in qkv.items()
                },
            ),
            "output": (
                2.0 * total * WIDTH * WIDTH,
                {name: lambda w=w, x=x: cpu.output_norm(x, w[1], x, *norm) for name, w in layers.items()},
            ),
            "feed-forward": (
                4.0 * total * WIDTH * INNER,
                {name: lambda w=w, x=x: cpu.feed_forward(x, w[2], w[3], "gelu", *norm) for name, w in layers.items()},
            ),
        }
        for part, (operations, runs) in parts.items():
            row = report(f"{part} of one layer, {texts}x{tokens}", in_turns(runs))
            row["gflops"] = {name: operations / ms / 1e6 for name, ms in row["ms"].items()}
            print("    " + ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in row["gflops"].items()), flush=True)
            yield row


def in_turns(runs: dict[str, Run], rounds: int = 9, seconds: float = 0.01) -> dict[str, float]:
    """The median time of each run in ms. They use the same threads, so that none has to wait for another's to sleep."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start, count = time.perf_counter(), 0
            while not count or time.perf_counter() - start < seconds:
                run()
                count += 1
            if number:
                times[name].append((time.perf_counter() - start) / count * 1e3)
    return {name: statistics.median(each) for name, each in times.items()}


if __name__ == "__main__":
    main()
