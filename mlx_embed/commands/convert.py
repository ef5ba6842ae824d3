"""Write a checkpoint as an MLX checkpoint, verified, and report what it costs in quality."""

import argparse
from pathlib import Path

from mlx_embed.convert import BITS, GROUP_SIZES, INT8_CPU, convert
from mlx_embed.engine.device import DTYPES


def add(parser: argparse.ArgumentParser) -> None:
    """Source, destination and how to convert."""
    parser.add_argument("source", help="folder, repository id or alias")
    parser.add_argument("destination", help="folder to write")
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of the weights (the source's)")
    parser.add_argument(
        "--quantize",
        type=_quantization,
        choices=(*BITS, INT8_CPU),
        metavar="BITS",
        help="8 or 4; or int8-cpu: weights stay, and CPUs compute in int8 but for the layers that cost most accuracy",
    )
    parser.add_argument("--group-size", type=int, choices=GROUP_SIZES, help="of 8 and 4 bits, weights a scale (64)")
    parser.add_argument(
        "--task", metavar="NAME", help="merge the LoRA for this task (of a model that has some: keep all)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint at the destination")
    parser.add_argument(
        "--evaluate", type=Path, metavar="FOLDER", help="also measure retrieval, in BEIR's or Cranfield's layout"
    )


def _quantization(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def run(options: argparse.Namespace) -> int:
    """Convert, and print the report."""
    if options.group_size is not None and options.quantize not in BITS:
        raise ValueError("--group-size is of weights of 8 or 4 bits: it needs --quantize 8 or 4.")
    report = convert(
        options.source,
        options.destination,
        dtype=options.dtype,
        quantize=options.quantize,
        group_size=options.group_size,
        task=options.task,
        overwrite=options.overwrite,
        evaluate=options.evaluate,
    )
    before, after = report.source_bytes / 2**20, report.destination_bytes / 2**20
    print(f"wrote {report.destination}")
    print(f"weights: {before:.1f} MiB -> {after:.1f} MiB ({after / before:.0%})")
    print(f"lowest cosine to the original, over sample texts: {report.min_cosine:.6f}")
    if report.kept_in_bfloat16 is not None:
        kept = ", ".join(report.kept_in_bfloat16)
        print(f"on a CPU computed in int8; in bfloat16: {kept or 'no layer'}")
    if report.logit_difference is not None:
        print(f"largest difference of a logit from the original's, over sample pairs: {report.logit_difference:.6f}")
    if (quality := report.quality) is not None:
        print(f"retrieval of {quality.documents} documents by {quality.queries} queries:")
        if quality.ndcg_drop is not None:
            print(f"  nDCG@10: {quality.ndcg_before:.4f} -> {quality.ndcg_after:.4f} (drop {quality.ndcg_drop:.4f})")
        print(f"  top 10 in common: {quality.top_10_overlap:.1%}")
        if quality.ndcg_drop is not None:
            print("  nDCG@10 is sentence-transformers' evaluator's: a document is relevant or not, whatever its gain.")
    if after < before and options.quantize != INT8_CPU:
        print("Smaller on disk, and in a GPU's memory; on a CPU not in memory, where kernels compute in float32.")
    return 0
