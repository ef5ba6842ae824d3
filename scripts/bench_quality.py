#!/usr/bin/env python3
"""Retrieval quality of a model in each dtype and quantization, beside sentence-transformers where installed.

    python scripts/bench_quality.py MODEL FOLDER [--documents N] [--only 8-bit 4-bit] [--compute float16] [--json FILE]

MODEL is a folder, repository id or alias; FOLDER holds documents, queries and judgements in BEIR's or Cranfield's
layout. Each variant is converted into a temporary folder and runs as `from_pretrained` loads it on this machine: a GPU
computes in the variant's own dtype and on its quantized weights, the native CPU kernels in float32, but for the
variants that name another dtype of theirs. `--compute` asks for another dtype; MLX_EMBED_KERNELS=reference computes on
MLX's own ops, slowly. Exits with 1 where a variant strays from the reference, sentence-transformers or else the first
variant, by more than its bound.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from mlx_embed import EmbeddingModel, TruncationWarning, convert
from mlx_embed.checkpoint import hub
from mlx_embed.engine.device import NATIVE_DTYPES, describe
from mlx_embed.evaluation import (
    Collection,
    Rankings,
    ndcg_at_10,
    read_collection,
    relevant_or_not,
    top_10,
    top_10_overlap,
)

# What `convert` is told, what `from_pretrained` is, and how far nDCG@10, as sentence-transformers defines it, may be
# from the reference's.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "float32": ({"dtype": "float32"}, {}, 1e-4),
    "float16": ({"dtype": "float16"}, {}, 1e-4),
    "8-bit": ({"quantize": 8}, {}, 0.005),
    "4-bit": ({"quantize": 4}, {}, float("inf")),
    "bfloat16 on the CPU": ({}, {"dtype": "bfloat16", "device": "cpu"}, 0.001),
    "int8 on the CPU": ({}, {"dtype": "int8", "device": "cpu"}, 0.003),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, help="only the first so many")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--compute", choices=NATIVE_DTYPES, help="dtype to compute in, instead of the machine's choice")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    options = parser.parse_args()
    warnings.simplefilter("ignore", TruncationWarning)
    source = hub.resolve(options.model)
    collection = first(read_collection(options.folder), options.documents)
    print(f"{len(collection.documents)} documents, {len(collection.queries)} queries")
    print(f"{'':22}  nDCG@10  difference | top 10 in common  seconds", flush=True)

    rows: list[dict[str, Any]] = []
    reference: Rankings | None = None
    if importlib.util.find_spec("sentence_transformers"):
        reference = sentence_transformers(source, collection, rows)
    failed = False
    for name in options.only:
        convert_options, load_options, bound = VARIANTS[name]
        with tempfile.TemporaryDirectory() as work:
            convert(source, Path(work) / "model", **convert_options)
            model = EmbeddingModel.from_pretrained(Path(work) / "model", **{"dtype": options.compute, **load_options})
            start = time.perf_counter()
            found = top_10(model, collection)
            seconds = time.perf_counter() - start
        reference = found if reference is None else reference
        row = figures(name, collection, found, reference, seconds)
        row["runs on"] = "native CPU kernels" if model.engine.name == "native" else describe(model.device)
        rows.append(row)
        failed |= abs(row["difference"]) > bound
        print(f"{'':22} {row['runs on']}, {str(model.dtype).removeprefix('mlx.core.')}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"documents": len(collection.documents), "rows": rows}, indent=2) + "\n")
    return int(failed)


def first(collection: Collection, count: int | None) -> Collection:
    """The collection with its first documents only; queries that are left without a relevant one do not count."""
    documents = dict(list(collection.documents.items())[:count])
    gains = {q: {d: gain for d, gain in judged.items() if d in documents} for q, judged in collection.gains.items()}
    return Collection(documents, collection.queries, gains)


def sentence_transformers(source: Path, collection: Collection, rows: list[dict[str, Any]]) -> Rankings:
    """sentence-transformers in float32 on the CPU, ranked here; its own evaluator must agree."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    model: Any = SentenceTransformer(str(source), device="cpu", model_kwargs={"dtype": torch.float32})
    start = time.perf_counter()
    found = top_10(model, collection)
    seconds = time.perf_counter() - start
    rows.append(figures("sentence-transformers", collection, found, found, seconds))
    gains = relevant_or_not(collection.gains)
    relevant = {query: {d for d, gain in judged.items() if gain} for query, judged in gains.items()}
    evaluate = InformationRetrievalEvaluator(dict(collection.queries), dict(collection.documents), relevant)
    rows[0]["its own evaluator"] = evaluate(model)[f"{model.similarity_fn_name}_ndcg@10"]
    print(f"{'':22} its own evaluator: {rows[0]['its own evaluator']:.6f}", flush=True)
    return found


def figures(name: str, collection: Collection, found: Rankings, reference: Rankings, seconds: float) -> dict[str, Any]:
    """One row, printed."""
    gains = relevant_or_not(collection.gains)
    ndcg = ndcg_at_10(found, gains)
    row: dict[str, Any] = {"variant": name, "ndcg": ndcg, "difference": ndcg - ndcg_at_10(reference, gains)}
    row |= {"overlap": top_10_overlap(reference, found), "seconds": seconds}
    print(f"{name:22} {ndcg:8.6f} {row['difference']:11.6f} | {row['overlap']:16.4f} {seconds:8.1f}", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
