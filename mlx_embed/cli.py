"""The `mlx-embed` command: `compare`, `convert`, `env` and `tune`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mlx_embed.convert import BITS, GROUP_SIZES, convert
from mlx_embed.device import DTYPES
from mlx_embed.errors import MLXEmbedError
from mlx_embed.hub import DEFAULT_MODEL


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 where a check failed, 2 where the arguments or a model are at fault."""
    parser = argparse.ArgumentParser(prog="mlx-embed", description="Text embeddings on MLX.")
    commands = parser.add_subparsers(dest="command", required=True)
    add_compare(commands.add_parser("compare", help="compare MLX's accelerator with its CPU stream"))
    add_convert(commands.add_parser("convert", help="write a checkpoint as an MLX checkpoint"))
    commands.add_parser("env", help="print what this machine has").set_defaults(run=_env)
    commands.add_parser("tune", help="time every way to compute each op on this machine's GPU").set_defaults(run=_tune)
    return run(parser.parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Run a parsed command; errors that the user can mend become a sentence on stderr."""
    try:
        return int(options.run(options))
    except (MLXEmbedError, ValueError, OSError) as error:
        print(f"mlx-embed: {error}", file=sys.stderr)
        return 2


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of the comparison run."""
    parser.add_argument("--model", default=DEFAULT_MODEL.value, help="folder, repository id or alias (%(default)s)")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="texts to embed, one a line")
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of the accelerator's side")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.set_defaults(run=_compare)


def add_convert(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of the conversion."""
    parser.add_argument("source", help="folder, repository id or alias")
    parser.add_argument("destination", help="folder to write")
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of the weights (the source's)")
    parser.add_argument("--quantize", type=int, choices=BITS, metavar="BITS", help="8 or 4")
    parser.add_argument("--group-size", type=int, choices=GROUP_SIZES, default=64, help="weights a scale (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint at the destination")
    parser.add_argument(
        "--evaluate", type=Path, metavar="FOLDER", help="also measure retrieval, in BEIR's or Cranfield's layout"
    )
    parser.set_defaults(run=_convert)


def _compare(options: argparse.Namespace) -> int:
    from mlx_embed.compare import DEFAULT_TEXTS, compare, format_report, to_json

    texts: Sequence[str] = DEFAULT_TEXTS
    if options.texts is not None:
        texts = [line for line in options.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise ValueError(f"--json {options.json}: there is no folder {options.json.absolute().parent}.")
    report = compare(options.model, texts, options.dtype, lambda step: print(f"... {step}", file=sys.stderr))
    print(format_report(report))
    if options.json is not None:
        options.json.write_text(to_json(report) + "\n", encoding="utf-8")
    return 1 if report.failures else 0


def _convert(options: argparse.Namespace) -> int:
    report = convert(
        options.source,
        options.destination,
        dtype=options.dtype,
        quantize=options.quantize,
        group_size=options.group_size,
        overwrite=options.overwrite,
        evaluate=options.evaluate,
    )
    before, after = report.source_bytes / 2**20, report.destination_bytes / 2**20
    print(f"wrote {report.destination}")
    print(f"weights: {before:.1f} MiB -> {after:.1f} MiB ({after / before:.0%})")
    print(f"lowest cosine to the original, over sample texts: {report.min_cosine:.6f}")
    if report.logit_difference is not None:
        print(f"largest difference of a logit from the original's, over sample pairs: {report.logit_difference:.6f}")
    if (quality := report.quality) is not None:
        print(f"retrieval of {quality.documents} documents by {quality.queries} queries:")
        if quality.ndcg_drop is not None:
            print(f"  nDCG@10: {quality.ndcg_before:.4f} -> {quality.ndcg_after:.4f} (drop {quality.ndcg_drop:.4f})")
        print(f"  top 10 in common: {quality.top_10_overlap:.1%}")
    return 0


def _env(options: argparse.Namespace) -> int:
    from mlx_embed.environment import environment

    rows = environment()
    width = max(map(len, rows))
    print("\n".join(f"{name.ljust(width)}  {value}" for name, value in rows.items()))
    return 0


def _tune(options: argparse.Namespace) -> int:
    from custom_kernels.choice.tune import cache_file
    from mlx_embed.device import accelerator, worker
    from mlx_embed.tuning import classes, measured

    if accelerator() is None:
        print("There is no GPU here, and so nothing to tune: the CPU's kernels are chosen by its instruction set.")
        return 0
    for shapes in classes():
        print(worker.run(partial(measured, *shapes)), flush=True)
    if accelerator() == "metal":
        print(f"These times choose what runs; they are in {cache_file()}.")
    else:
        print("On CUDA these times choose nothing: what runs was measured on an H100.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
