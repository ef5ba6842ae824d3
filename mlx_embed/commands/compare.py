"""Compare MLX's CPU stream, the native kernels and the accelerator: vectors, latency, each op."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mlx_embed.checkpoint import DEFAULT_MODEL
from mlx_embed.engine.device import DTYPES


def add(parser: argparse.ArgumentParser) -> None:
    """The model, the texts, and where to write the figures."""
    parser.add_argument("--model", default=DEFAULT_MODEL.value, help="folder, repository id or alias (%(default)s)")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="texts to embed, one a line")
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of the accelerator's side")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--sparse", action="store_true", help="the model is a sparse one")
    kind.add_argument("--multi-vector", action="store_true", help="the model gives a vector a token (ColBERT)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")


def run(options: argparse.Namespace) -> int:
    """Print the report; 1 where something does not agree."""
    from mlx_embed.measure.compare import DEFAULT_TEXTS, compare
    from mlx_embed.measure.report import to_json
    from mlx_embed.measure.text import as_text

    texts: Sequence[str] = DEFAULT_TEXTS
    if options.texts is not None:
        texts = [line for line in options.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise ValueError(f"--json {options.json}: there is no folder {options.json.absolute().parent}.")
    if options.sparse or options.multi_vector:
        from mlx_embed.kinds import MULTI_VECTOR, SPARSE
        from mlx_embed.measure.kinds import compare_kind

        found = compare_kind(SPARSE if options.sparse else MULTI_VECTOR, options.model, texts, options.dtype)
        print(found.as_text())
        if options.json is not None:
            options.json.write_text(found.to_json() + "\n", encoding="utf-8")
        return 1 if found.failures else 0
    report = compare(options.model, texts, options.dtype)
    print(as_text(report))
    if options.json is not None:
        options.json.write_text(to_json(report) + "\n", encoding="utf-8")
    return 1 if report.failures else 0
