"""Index folders of text, code and documents for `mlx-embed search`; again, only what has changed."""

import argparse
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mlx_embed import terminal
from mlx_embed.arguments import path_of
from mlx_embed.records.options import add_fields

if TYPE_CHECKING:
    from mlx_embed.index import Index
    from mlx_embed.index.chunks import Chunking
    from mlx_embed.index.sync import Summary

# Seconds between two looks at the sources, or so many times as long as a look takes.
LOOK_EVERY, LOOK_SHARE = 1.0, 20


def add(parser: argparse.ArgumentParser) -> None:
    """What to index, where to, and how."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="folders and files")
    parser.add_argument(
        "--index", type=Path, required=True, metavar="DIR", help="the index, made where it is not there"
    )
    parser.add_argument("--model", help="folder, repository id or alias, of a new index")
    parser.add_argument(
        "--glob",
        dest="globs",
        action="append",
        default=[],
        metavar="PATTERN",
        help="take only files that match, as .gitignore would: '*.md', 'docs/'; repeatable, '!' excepts",
    )
    parser.add_argument(
        "--chunk-tokens", type=int, metavar="N", help="the longest chunk (256, or what the model takes)"
    )
    parser.add_argument(
        "--chunk-overlap", type=int, metavar="N", help="tokens that a chunk may repeat of the one before (an eighth)"
    )
    add_fields(parser, what="column of CSV, JSONL and Parquet that has the text")
    parser.add_argument("--watch", action="store_true", help="stay, and take in changes as they come")
    parser.add_argument("-v", "--verbose", action="store_true", help="name the files that are new, changed or gone")


def run(options: argparse.Namespace) -> int:
    """Bring the index up to date, and print a summary; 1 where a file could not be read."""
    from mlx_embed.index.sources import roots

    roots(options.sources)  # before a model is loaded
    made = not is_there(options)
    with opened(options) as index:
        if options.watch:
            say("Watching: Ctrl-C ends it.")
            watch(index, options)
        start = time.perf_counter()
        summary = index.sync(options.sources, globs=options.globs)
        show(summary, time.perf_counter() - start, options.verbose)
        nothing = not len(index)
    if made and nothing and summary.failed:  # by a wrong --field, say, which it would hold the next run to
        for path in path_of("--index", options.index).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return 1 if summary.failed else 0


def watch(index: "Index", options: argparse.Namespace) -> NoReturn:
    """Look again and again; of a source that is away for a while, the index keeps what it has."""
    from mlx_embed.index.sources import MissingSourceError

    failed: list[tuple[str, str]] = []
    away: set[str] = set()
    while True:
        start, busy = time.perf_counter(), False
        here = [source for source in options.sources if os.path.exists(os.path.expanduser(source))]
        for source in sorted(set(options.sources) - away - set(here)):
            say(f"{source} is away: the index keeps what it has of it, until it is there again.")
        away = set(options.sources) - set(here)
        with suppress(MissingSourceError):  # gone just now, which the next look says
            if here:
                summary = index.sync(here, globs=options.globs)
                busy = summary.did_something
                if busy or summary.failed != failed:
                    show(summary, time.perf_counter() - start, options.verbose)
                failed = summary.failed
        time.sleep(max(LOOK_EVERY, LOOK_SHARE * (time.perf_counter() - start) * (not busy)))


def opened(options: argparse.Namespace) -> "Index":
    """The index that is there, if it is as the options say, or a new one.

    Raises:
        ValueError: one that was made with other options.
    """
    from mlx_embed.embedding_model import EmbeddingModel
    from mlx_embed.index import Index
    from mlx_embed.index.chunks import Chunking

    folder = path_of("--index", options.index)
    if is_there(options):
        index = Index.open(folder, options.model)
        try:
            check(Chunking.of(index.chunker), options)
        except BaseException:
            index.close()
            raise
        return index
    model = EmbeddingModel.from_pretrained(options.model)
    chunking = Chunking.checked(model, options.chunk_tokens, options.chunk_overlap, options.fields)
    return Index.create(folder, model, chunker=chunking.name, exist_ok=True)


def is_there(options: argparse.Namespace) -> bool:
    """Whether the folder of the index has anything in it."""
    folder = path_of("--index", options.index)
    return folder.is_dir() and any(folder.iterdir())


def check(chunking: "Chunking", options: argparse.Namespace) -> None:
    """Refuse options that ask for other chunks than those that are there: they would be of two kinds."""
    asked = {"tokens": options.chunk_tokens, "overlap": options.chunk_overlap, "fields": tuple(options.fields) or None}
    names = {"tokens": "--chunk-tokens", "overlap": "--chunk-overlap", "fields": "--field"}
    for name, value in asked.items():
        made, option = getattr(chunking, name), names[name]
        if value is not None and value != made:
            words = [str(one) for one in (made if isinstance(made, tuple) else (made,))]
            was = "".join(f" {option} {word}" for word in words)
            raise ValueError(
                f"{options.index} was made {f'with{was}' if words else f'without {option}'}: leave {option} out, or "
                "index into a new folder."
            )


def show(summary: "Summary", seconds: float, verbose: bool) -> None:
    """Print what was done, and on stderr what could not be."""
    if verbose:
        for name, paths in (("indexed", summary.indexed), ("changed", summary.changed), ("removed", summary.removed)):
            for path in paths:
                print(terminal.line(f"{name} {path}"))
        for before, path in summary.moved:
            print(terminal.line(f"moved {before} to {path}"))
    print(f"{summary} ({summary.chunks:,} chunks in {seconds:.1f} s)", flush=True)
    for path, reason in summary.failed:
        say(f"failed: {reason if reason.startswith(path) else f'{path}: {reason}'}")


def say(sentence: str) -> None:
    """A line on stderr, if there is one."""
    if sys.stderr is not None:
        print(terminal.line(sentence), file=sys.stderr, flush=True)
