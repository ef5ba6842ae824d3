"""Embed files into a folder of Parquet shards by several processes or a Ray cluster; go on where a run was ended."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from mlx_embed.engine.device import NATIVE_DTYPES
from mlx_embed.records.options import add_fields
from mlx_embed.records.reading import FORMATS


def add(parser: argparse.ArgumentParser) -> None:
    """The files, where to put the vectors, and who makes them."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="Parquet, JSONL, CSV, or lines of text")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder of the shards and their manifest")
    parser.add_argument("--workers", type=int, metavar="N", help="processes or actors (one a GPU, or one)")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help='of a cluster, whose actors do it: "auto", "ray://HOST:PORT", "local"'
    )
    parser.add_argument("--rows", type=int, default=20_000, metavar="N", help="rows of a shard (%(default)s)")
    parser.add_argument("--model", help="folder, repository id or alias")
    parser.add_argument("--format", choices=FORMATS, help="of all inputs, where their names do not say it")
    add_fields(parser)
    parser.add_argument("--id-field", metavar="NAME", help="field or column of the id (_id or id, if there is one)")
    parser.add_argument("--prompt-name", metavar="NAME", help="the model's prompt to put before each text")
    parser.add_argument("--truncate-dim", type=int, metavar="N", help="keep the first N dimensions")
    parser.add_argument(
        "--long-text", choices=("truncate", "mean_of_chunks"), default="truncate", help="see `encode` (%(default)s)"
    )
    parser.add_argument("--dtype", choices=NATIVE_DTYPES, help="dtype to compute in; int8 on a CPU")
    parser.add_argument("--device", choices=("cpu", "gpu", "metal", "cuda"), help="where to compute")
    parser.add_argument("--task", metavar="NAME", help="of a model with a LoRA for each task, the one")


def run(options: argparse.Namespace) -> int:
    """Do what is left of the job."""
    from mlx_embed.arguments import is_folder, positive_number
    from mlx_embed.checkpoint import hub
    from mlx_embed.checkpoint.folder import read_checkpoint
    from mlx_embed.jobs import job, shards
    from mlx_embed.progress import counted
    from mlx_embed.texts import progress

    rows = positive_number("--rows", options.rows, "rows of a shard")
    if options.workers is not None:
        positive_number("--workers", options.workers, "processes")
    sources = shards.sources(options.inputs, options.format, options.fields, options.id_field)
    folder, name = hub.find(options.model)
    checkpoint = read_checkpoint(folder, name)
    if options.task is not None:
        checkpoint = checkpoint.for_task(options.task)
    if checkpoint.needs_task:
        raise ValueError(f"This model needs a task, of {', '.join(checkpoint.tasks)}: name one by --task.")
    if options.prompt_name is not None and options.prompt_name not in checkpoint.prompts:
        known = ", ".join(checkpoint.prompts) or "none"
        raise ValueError(f"--prompt-name {options.prompt_name!r} is not one of the model's: {known}.")
    encode = {key: getattr(options, key) for key in ("prompt_name", "truncate_dim", "long_text")}
    load = {key: getattr(options, key) for key in ("dtype", "device", "task") if getattr(options, key) is not None}
    # Other machines have a model of the hub by its name, and not in this folder.
    model = name if options.ray is not None and not is_folder(name) else str(folder)
    work = job.Work(str(options.output.absolute()), model, load, encode)
    plan = plan_of(sources, rows, name, checkpoint.state, load, encode)
    start = time.perf_counter()
    with shards.opened(options.output, plan) as manifest:
        parts = shards.shards(sources, rows)
        before = len(manifest.done)
        if before:
            say(f"{before:,} of {len(parts):,} shards are done already.")
        with progress(None, len(parts), "shard", description="Embedding", done=before, steps=True) as advance:
            for _ in job.run(manifest, parts, work, options.workers, options.ray, advance.inside):
                advance(1)
        manifest.finish(len(parts))
    done = manifest.done.values()
    cut = sum(shard.cut for shard in done)
    if cut:
        say(f"{cut:,} texts are longer than the model takes; --long-text mean_of_chunks embeds all of them.")
    seconds = time.perf_counter() - start
    total, tokens = sum(shard.rows for shard in done), sum(shard.tokens for shard in done)
    found = f"{counted(total, 'text')}, {counted(tokens, 'token')}"
    print(f"{found}, by {name}: {counted(len(parts), 'shard')} in {options.output} ({seconds:.1f} s).")
    return 0


def plan_of(sources: Any, rows: int, model: str, state: str, load: Any, encode: Any) -> dict[str, Any]:
    """What must be the same for two runs to do one job; JSON values."""
    from mlx_embed import __version__

    files = [(str(source.path.absolute()), source.path.stat()) for source in sources]
    return {
        "version of mlx-embed": __version__,
        "input": [[name, file.st_size, file.st_mtime_ns] for name, file in files],
        "format": [source.format for source in sources],
        "fields": [[list(source.fields), source.id_field] for source in sources],
        "rows of a shard": rows,
        "model": model,
        "state of the model's files": state,
        **load,
        **encode,
    }


def say(sentence: str) -> None:
    """A line on stderr, if there is one."""
    if sys.stderr is not None:
        print(sentence, file=sys.stderr)
