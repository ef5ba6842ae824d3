"""Embed the texts of a file, one a line or in JSONL, CSV or Parquet, into a file of vectors."""

import argparse
import os
import time
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_embed.checkpoint import DEFAULT_MODEL
from mlx_embed.engine.device import NATIVE_DTYPES
from mlx_embed.records.options import add_fields
from mlx_embed.records.reading import FORMATS
from mlx_embed.vector_dtypes import OUTPUT_DTYPES

if TYPE_CHECKING:
    from mlx_embed.encode_files.dense import Encoding


def add(parser: argparse.ArgumentParser) -> None:
    """The file, what to make of it, and where to put it."""
    parser.add_argument("file", metavar="FILE", help="the texts; - reads standard input")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="OUT.npy, OUT.parquet or OUT.jsonl (JSONL, to standard output)"
    )
    parser.add_argument("--model", help=f"folder, repository id or alias ({DEFAULT_MODEL.value})")
    parser.add_argument("--prompt-name", metavar="NAME", help="the model's prompt to put before each text")
    parser.add_argument("--dtype", choices=NATIVE_DTYPES, help="dtype to compute in; int8 on a CPU")
    parser.add_argument("--device", choices=("cpu", "gpu", "metal", "cuda"), help="where to compute")
    parser.add_argument("--truncate-dim", type=int, metavar="N", help="keep the first N dimensions")
    parser.add_argument("--output-dtype", choices=OUTPUT_DTYPES, default="float32", help="(%(default)s)")
    parser.add_argument(
        "--ranges",
        metavar="FILE",
        help="[2, D] in .npy, for int8 and uint8 (those of the first texts, kept beside OUT)",
    )
    parser.add_argument(
        "--long-text", choices=("truncate", "mean_of_chunks"), default="truncate", help="see `encode` (%(default)s)"
    )
    parser.add_argument("--format", choices=FORMATS, help="of FILE, where its name does not say it")
    add_fields(parser, "--text-column")
    parser.add_argument("--id-field", metavar="NAME", help="field or column of the id (_id or id, if there is one)")
    parser.add_argument(
        "--server",
        metavar="URL",
        default=os.environ.get("MLX_EMBED_SERVER") or None,
        help="a running `mlx-embed serve` that computes, instead of a model that is loaded here (MLX_EMBED_SERVER)",
    )
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="the server's key, in the first line")
    parser.add_argument("--resume", action="store_true", help="go on where a run that was ended left off")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--sparse",
        action="store_true",
        help="weights of tokens, by a sparse model or BGE-M3; .npz (CSR), not .npy",
    )
    kind.add_argument(
        "--multi-vector",
        action="store_true",
        help="a vector a token, by a ColBERT model or BGE-M3; .npz, not .npy",
    )
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="of a model with a LoRA for each task, the one; with --sparse and --multi-vector query or document, which "
        "the texts are (document)",
    )


def run(options: argparse.Namespace) -> int:
    """Embed, and say what was done."""
    from mlx_embed.encode_files import dense, kinds
    from mlx_embed.records import ragged, reading, writing

    of_kind = options.sparse or options.multi_vector
    if of_kind:
        kinds.check(options)
    elif options.task is not None and options.server is not None:
        raise ValueError("--task names a LoRA here, and a server is told it when it starts: leave it away.")
    if options.server is not None:
        _check_servers_own(options)
    elif options.api_key_file is not None:
        raise ValueError("--api-key-file is the key of a server: name it by --server.")
    if options.ranges is not None and options.output_dtype not in ("int8", "uint8"):
        raise ValueError("--ranges are of --output-dtype int8 and uint8: leave them away.")
    source = reading.source(options.file, options.format, options.fields, options.id_field)
    suffixes = ragged.SUFFIXES if of_kind else writing.SUFFIXES
    target = None if options.output is None else writing.checked_target(options.output, suffixes)
    if target is None and options.resume:
        raise ValueError("--resume goes on with a file: name it with -o.")
    if target is not None and source.path is not None and target.exists() and target.samefile(source.path):
        raise ValueError(f"{target} is the file of texts; write the vectors to another.")
    records = reading.records(source)
    if target is not None and target.suffix == ".parquet":
        from mlx_embed.records import parquet

        records = parquet.holdable(records)
    # The first text shows most of what can be wrong with a file, before a model is loaded.
    records = chain([record for record in [next(records, None)] if record is not None], records)
    partial_of = ragged.RaggedPartial if of_kind else writing.Partial
    with nullcontext() if target is None else partial_of(target) as partial:
        try:
            if of_kind:
                encoding: Encoding = kinds.opened(options, source, partial)
            else:
                encoding = dense.Encoding(dense.opened_model(options), options, source, partial)
            start = time.perf_counter()
            encoding.run(records)
        except BaseException:
            if partial is not None and partial.journal.rows:
                dense.say(f"{partial.journal.rows:,} texts are done and kept; the same command with --resume goes on.")
            raise
    encoding.report(time.perf_counter() - start)
    return 0


def _check_servers_own(options: argparse.Namespace) -> None:
    """Raise where something is asked for that a server has decided already."""
    for name, value in (("device", options.device), ("dtype", options.dtype)):
        if value is not None:
            raise ValueError(f"--{name} is what the server at {options.server} was started with: leave it away here.")
    if options.long_text != "truncate":
        raise ValueError(
            f"A server cuts long texts: --long-text {options.long_text} needs the model here (no --server)."
        )
