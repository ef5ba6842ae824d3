"""Measure how well models find, and how fast, on a folder of documents, queries and judgements."""

import argparse
from pathlib import Path

from mlx_embed.checkpoint import DEFAULT_MODEL
from mlx_embed.engine.device import NATIVE_DTYPES


def add(parser: argparse.ArgumentParser) -> None:
    """The folder, the models, and where to write what was found."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="in BEIR's or Cranfield's layout: docs/pages.md")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        help=f"folder, repository id or alias ({DEFAULT_MODEL.value}); repeatable, the first is compared with",
    )
    parser.add_argument(
        "--dtype", action="append", choices=NATIVE_DTYPES, help="to compute in (the model's own); repeatable"
    )
    parser.add_argument("--reranker", action="append", default=[], metavar="MODEL", help="a cross-encoder; repeatable")
    parser.add_argument("--device", choices=("cpu", "gpu", "metal", "cuda"), help="where to compute")
    parser.add_argument("--truncate-dim", type=int, metavar="N", help="keep the first N dimensions")
    parser.add_argument(
        "--graded", action="store_true", help="use gains as they were judged, as BEIR does, not relevant or not"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page of them")


def run(options: argparse.Namespace) -> int:
    """Evaluate, and print the table."""
    from mlx_embed.arguments import output_files
    from mlx_embed.checkpoint import hub
    from mlx_embed.evaluation import read_collection
    from mlx_embed.measure.retrieval import evaluate, to_json
    from mlx_embed.measure.retrieval_html import as_text, page
    from mlx_embed.pages.charts import require

    if options.html is not None:
        require()
    output_files(
        {"--json": options.json, "--html": options.html}, [path for path in options.folder.rglob("*") if path.is_file()]
    )
    found = evaluate(
        read_collection(options.folder),
        options.model or [hub.find().name],
        folder=options.folder.resolve().name,
        dtypes=options.dtype or [None],
        rerankers=options.reranker,
        device=options.device,
        truncate_dim=options.truncate_dim,
        graded=options.graded,
    )
    print(as_text(found))
    if options.json is not None:
        options.json.write_text(to_json(found) + "\n", encoding="utf-8")
    if options.html is not None:
        options.html.write_text(page(found), encoding="utf-8")
        print(f"The same as a page: {options.html}")
    return 0
