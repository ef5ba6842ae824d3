#!/usr/bin/env python3
"""Time the CUDA kernels, forward passes and encode beside MLX's own ops and PyTorch, all in one run on one GPU.

    python scripts/bench_gpu.py [--documents 50000] [--sides forward "torch eager" ...] [--json FILE]
    python scripts/bench_gpu.py --model FOLDER --cranfield FOLDER \
        --sides "first pass, cold" "first pass, again" texts tokenizer query pool

Needs MLX's CUDA build, PyTorch, transformers, sentence-transformers and tokenizers beside this checkout; the second
line MLX's and tokenizers alone. Models have random weights in float16, or for forward passes and the race another
--dtype (no side's float32 is TF32), and texts have random words, unless the folders of a model and of Cranfield's
docs.jsonl are given. Each side runs in a process of its own, one after the other; in the race they take turns. Every
figure is the median of several runs after two or more that do not count; kernels are timed over many in one evaluation,
forward passes from token ids on the host to vectors on the host. "first pass, cold" is of a process that finds nothing
that another has compiled, "first pass, again" finds what that one has left. All sides take some ten minutes, most of it
the kernels', whose peers MLX compiles, and torch.compile's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gpu_decoders
import gpu_kernels
import gpu_race
import gpu_texts
import numpy as np
from bench_cpu import with_pooling
from gpu_kernels import median

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = 30522
# layers, hidden, heads, intermediate
MODELS = {
    "MiniLM-L6": (6, 384, 12, 1536),
    "e5-small": (12, 384, 12, 1536),
    "BERT-base": (12, 768, 12, 3072),
    "ModernBERT-base": (22, 768, 12, 1152),
}
FORWARDS = [
    ("MiniLM-L6", 1, 16),
    ("MiniLM-L6", 32, 128),
    ("MiniLM-L6", 256, 128),
    ("MiniLM-L6", 1024, 128),
    ("e5-small", 64, 512),
    ("BERT-base", 1024, 128),
    ("ModernBERT-base", 32, 128),
    ("ModernBERT-base", 512, 128),
    ("ModernBERT-base", 128, 512),
    ("ModernBERT-base", 8, 8192),
]
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=50000)
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=list(SIDES), help="run these; torch.compile is slow"
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="forward passes of these")
    parser.add_argument(
        "--dtype", choices=["float16", "bfloat16", "float32"], default="float16", help="of those passes and the race"
    )
    parser.add_argument("--budgets", nargs="+", type=int, default=[16384, 16896], help="tokens of decoders' batches")
    parser.add_argument(
        "--blocks", nargs="+", type=int, default=[8192, 16384, 32768], help="tokens of a block of mlx-lm's code"
    )
    parser.add_argument("--racers", nargs="+", choices=gpu_race.RACERS, default=list(gpu_race.RACERS))
    parser.add_argument("--patience", type=float, default=900, help="seconds for racers to get ready, as to compile")
    parser.add_argument("--model", type=Path, help="a checkpoint, for the sides that begin with strings")
    parser.add_argument("--cranfield", type=Path, help="the folder of docs.jsonl, for the same")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print("\n" + json.dumps(SIDES[options.side](options.work, options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if not set(options.sides) <= {*WITHOUT_MODELS, *(TEXTS if options.model else ())}:
            make_models(work)
        figures = {}
        for side in options.sides:
            figures[side] = run_side(side, work, sys.argv[1:])
            show(side, figures[side])
            if options.json:
                options.json.write_text(json.dumps(figures, indent=1))


def run_side(side: str, work: Path, arguments: list[str]) -> Figures:
    """One side in a fresh process; what it prints last is its figures."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "MLX_EMBED_KERNELS": "reference" if "reference" in side else "",
        "MLX_ENABLE_TF32": "0",
    }
    if side == "decoders":  # mlx-lm's code has more shapes than MLX keeps graphs of, and would make them anew
        environment |= {"MLX_CUDA_GRAPH_CACHE_SIZE": "8192", "MLX_CUDA_SDPA_CACHE_SIZE": "1024"}
    if side.startswith("first pass"):
        environment |= {"XDG_CACHE_HOME": str(work / "cache"), "CUDA_CACHE_PATH": str(work / "cuda")}
        environment.pop("MLX_PTX_CACHE_DIR", None)
    command = [sys.executable, __file__, *arguments, "--side", side, "--work", str(work)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {f"failed with status {done.returncode}": float("nan")}
    figures: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def show(side: str, figures: Figures) -> None:
    print(f"\n{side}")
    for name, value in figures.items():
        print(f"  {name:58} {value:12.4f}", flush=True)


def make_models(work: Path) -> None:
    """Checkpoints of the shapes, random weights; words w0, w1, ... are one token each."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"w{i}" for i in range(VOCABULARY - len(words))]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    for name, (layers, hidden, heads, intermediate) in MODELS.items():
        torch.manual_seed(0)
        sizes = {
            "vocab_size": VOCABULARY,
            "num_hidden_layers": layers,
            "hidden_size": hidden,
            "num_attention_heads": heads,
            "intermediate_size": intermediate,
        }
        if name.startswith("Modern"):
            ids = {f"{name}_token_id": i for name, i in (("pad", 0), ("cls", 2), ("sep", 3), ("bos", 2), ("eos", 3))}
            encoder: torch.nn.Module = ModernBertModel(ModernBertConfig(**sizes, **ids, max_position_embeddings=8192))
        else:
            encoder = BertModel(BertConfig(**sizes), add_pooling_layer=False)
        encoder.half().save_pretrained(work / name)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **special).save_pretrained(
            work / name
        )
        with_pooling(work / name, hidden, "mean")
        (work / name / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 256}))


def documents(count: int) -> list[str]:
    """Ragged: 65 words on average, most of them shorter."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.9, 0.75, size=count), 3, 250).astype(int)
    return [" ".join(f"w{i}" for i in rng.integers(0, VOCABULARY - 5, size=n)) for n in lengths]


def tokens(count: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(5, VOCABULARY, size=(count, length)).astype(np.int32)


def forwards(options: argparse.Namespace) -> list[tuple[str, int, int]]:
    return [forward for forward in FORWARDS if forward[0] in options.models]


def flops(name: str, count: int, length: int) -> float:
    """Of the matrix products alone."""
    layers, hidden, _, intermediate = MODELS[name]
    products = 6 if name.startswith("Modern") else 4  # two of three are gated, and their keys are counted as all seen
    return layers * count * length * (8 * hidden * hidden + products * hidden * intermediate + 4 * length * hidden)


def forward_side(work: Path, options: argparse.Namespace) -> Figures:
    from custom_kernels.cuda.ahead import under_way
    from mlx_embed import EmbeddingModel
    from mlx_embed.batching import Batch

    figures: Figures = {}
    for name, count, length in forwards(options):
        model = EmbeddingModel.from_pretrained(work / name, dtype=options.dtype)
        engine, head = model.engine, model.head()
        (batch,) = engine.batches(list(tokens(count, length)), count * length)

        def run(engine: Any = engine, head: Any = head, batch: Batch = batch) -> Any:
            return list(engine.run([batch], head))

        run()
        under_way(60)
        seconds = median(run, 30)
        figures[f"{name} {count} x {length}, ms"] = seconds * 1e3
        figures[f"{name} {count} x {length}, TFLOP/s"] = flops(name, count, length) / seconds / 1e12
    return figures


def launches_side(work: Path, options: argparse.Namespace) -> Figures:
    """Kernel launches of one forward pass, from the CUDA graphs that MLX writes out."""
    import mlx.core as mx

    from mlx_embed.measure.launches import count_launches

    figures: Figures = {}
    for model, count, length in (("MiniLM-L6", 1, 16), ("MiniLM-L6", 32, 128), ("BERT-base", 32, 128)):
        if model not in options.models:
            continue
        texts = [" ".join(f"w{i}" for i in row[2:]) for row in tokens(count, length) % (VOCABULARY - 5)]
        for name, kernels in (("", True), (", MLX's own ops", False)):
            launches = count_launches(work / model, mx.float16, texts, kernels=kernels).total()
            figures[f"{model} {count} x {length}{name}, launches"] = launches
            figures[f"{model} {count} x {length}{name}, launches a layer, about"] = launches / MODELS[model][0]
    return figures


def of_texts(side: Callable[[Path, list[str]], Figures], work: Path, options: argparse.Namespace) -> Figures:
    """A side that begins with strings, on the model and the texts that were given, or on those made here."""
    model = options.model or work / "MiniLM-L6"
    count = options.documents
    return side(model, gpu_texts.cranfield(options.cranfield, count) if options.cranfield else documents(count))


def torch_side(work: Path, options: argparse.Namespace) -> Figures:
    # Before transformers is imported, which then looks for packages.
    flash = gpu_race.flash_attention(work) if options.side == "torch flash" else ""
    import torch
    from transformers import AutoModel

    # By itself torch.compile makes sizes that change dynamic, and runs several times slower.
    modes = {"torch.compile": None, "torch.compile max-autotune": "max-autotune"}
    figures: Figures = {}
    for name, count, length in forwards(options):
        attention = flash or "sdpa"
        if options.side in modes and not name.startswith("Modern"):  # which masks what is far away
            attention = gpu_race.unmasked()
        dtype = getattr(torch, options.dtype)
        encoder = AutoModel.from_pretrained(work / name, dtype=dtype, attn_implementation=attention)
        encoder = encoder.cuda().eval()
        model: Any = encoder
        if options.side in modes:
            torch.compiler.reset()  # or what was compiled for the shapes before counts against the limit
            model = torch.compile(encoder, dynamic=False, mode=modes[options.side])
        ids = torch.from_numpy(tokens(count, length).astype(np.int64))

        @torch.inference_mode()
        def run(model: Any = model, ids: Any = ids) -> Any:
            hidden = model(input_ids=ids.cuda()).last_hidden_state
            return torch.nn.functional.normalize(hidden.float().mean(dim=1)).cpu()

        seconds = median(run, 30)
        figures[f"{name} {count} x {length}, ms"] = seconds * 1e3
        figures[f"{name} {count} x {length}, TFLOP/s"] = flops(name, count, length) / seconds / 1e12
    return figures


def sentence_transformers_side(work: Path, options: argparse.Namespace) -> Figures:
    import torch
    from sentence_transformers import SentenceTransformer

    corpus = documents(min(options.documents, 10000))
    model = SentenceTransformer(str(work / "MiniLM-L6"), device="cuda", model_kwargs={"dtype": torch.float16})
    model.encode(corpus[:2000], batch_size=512)
    figures: Figures = {}
    for size in (128, 512):
        start = time.perf_counter()
        model.encode(corpus, batch_size=size)
        figures[f"docs/s, {len(corpus)} documents, batch {size}"] = len(corpus) / (time.perf_counter() - start)
    return figures


TEXTS: dict[str, Callable[[Path, argparse.Namespace], Figures]] = {
    "first pass, cold": partial(of_texts, gpu_texts.first_pass),
    "first pass, again": partial(of_texts, gpu_texts.first_pass),
    "texts": partial(of_texts, gpu_texts.texts),
    "texts reference": partial(of_texts, gpu_texts.texts),
    "query": partial(of_texts, gpu_texts.query),
    "tokenizer": partial(of_texts, gpu_texts.tokenizer),
    "pool": partial(of_texts, gpu_texts.pool),
}
WITHOUT_MODELS: dict[str, Callable[[Path, argparse.Namespace], Figures]] = {
    "copy": gpu_kernels.copy_side,
    "kernels": gpu_kernels.kernels_side,
    "layer norm": gpu_kernels.layer_norm_side,
    "products": gpu_kernels.products_side,
    "decoders": gpu_decoders.side,
}
SIDES: dict[str, Callable[[Path, argparse.Namespace], Figures]] = {
    **WITHOUT_MODELS,
    "forward": forward_side,
    "forward reference": forward_side,
    "launches": launches_side,
    "race": gpu_race.side,
    **TEXTS,
    "torch eager": torch_side,
    "torch flash": torch_side,
    "sentence-transformers": sentence_transformers_side,
    "torch.compile": torch_side,
    "torch.compile max-autotune": torch_side,
}


if __name__ == "__main__":
    main()
