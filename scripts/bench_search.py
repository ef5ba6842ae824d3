#!/usr/bin/env python3
"""How well an index finds documents: nDCG@10 by vectors, by words, by both, and with a reranker.

    python scripts/bench_search.py MODEL FOLDER [--reranker NAME] [--row-dtype int8] [--json FILE]

MODEL is a folder, repository id or alias; FOLDER holds documents, queries and judgements in BEIR's or Cranfield's
layout, of which the degrees of relevance count. Prints, for each mode, nDCG@10 and how long all queries took.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from mlx_embed import CrossEncoder, EmbeddingModel, TruncationWarning
from mlx_embed.evaluation import ndcg_at_10, read_collection
from mlx_embed.index import Index


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reranker", help="a CrossEncoder that reads the best 50 again")
    parser.add_argument("--row-dtype", default="float32", choices=("float32", "float16", "int8"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    options = parser.parse_args()
    warnings.simplefilter("ignore", TruncationWarning)
    collection = read_collection(options.folder)
    model = EmbeddingModel.from_pretrained(options.model)
    reranker = CrossEncoder.from_pretrained(options.reranker) if options.reranker else None
    names, questions = list(collection.queries), list(collection.queries.values())
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as work,
        Index.create(Path(work) / "index", model, row_dtype=options.row_dtype) as index,
    ):
        start = time.perf_counter()
        index.add(list(collection.documents), list(collection.documents.values()))
        print(f"{len(index)} documents indexed in {time.perf_counter() - start:.1f} s, {len(names)} queries")
        print(f"{'':18} nDCG@10  seconds", flush=True)
        ways: list[tuple[str, dict[str, Any]]] = [(mode, {"mode": mode}) for mode in ("vector", "text", "hybrid")]
        if reranker is not None:
            ways.append(("hybrid, reranked", {"mode": "hybrid", "rerank": reranker}))
        for name, how in ways:
            start = time.perf_counter()
            found = index.search(questions, 10, **how)
            seconds = time.perf_counter() - start
            rankings = {query: [hit.id for hit in hits] for query, hits in zip(names, found, strict=True)}
            rows.append({"mode": name, "ndcg": ndcg_at_10(rankings, collection.gains), "seconds": seconds})
            print(f"{name:18} {rows[-1]['ndcg']:7.4f} {seconds:8.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"documents": len(collection.documents), "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
