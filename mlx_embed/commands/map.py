"""Draw a map of the texts of a file or an index: alike texts lie together, in clusters with words."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_embed.arguments import is_folder
from mlx_embed.engine.device import NATIVE_DTYPES
from mlx_embed.records.options import add_fields
from mlx_embed.records.reading import FORMATS

if TYPE_CHECKING:
    from mlx_embed.maps.corpus import Corpus


def add(parser: argparse.ArgumentParser) -> None:
    """What to draw, and where to write it."""
    parser.add_argument("source", metavar="FILE|INDEX", help="texts, or a folder that `mlx-embed index` has made")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the page (map.html)")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="also write what embedding-atlas reads")
    parser.add_argument(
        "--column",
        action="append",
        dest="columns",
        metavar="NAME",
        help="field or column to show and to colour by; of an index path, or a key of metadata; repeatable",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N texts")
    parser.add_argument("--model", help="folder, repository id or alias, of a file")
    parser.add_argument("--dtype", choices=NATIVE_DTYPES, help="dtype to compute in; int8 on a CPU")
    parser.add_argument("--device", choices=("cpu", "gpu", "metal", "cuda"), help="where to compute")
    parser.add_argument("--format", choices=FORMATS, help="of FILE, where its name does not say it")
    add_fields(parser)
    parser.add_argument("--id-field", metavar="NAME", help="field or column of the id (_id or id, if there is one)")


def run(options: argparse.Namespace) -> int:
    """Draw it, and say where it is."""
    import logging

    from mlx_embed.arguments import output_files, positive_number
    from mlx_embed.maps import layout
    from mlx_embed.maps.clusters import clustered, words
    from mlx_embed.maps.html import Map, page

    logger = logging.getLogger("mlx_embed")
    if options.limit is not None:
        positive_number("--limit", options.limit, "texts")
    output = options.output or Path("map.html")
    output_files({"--output": output, "--parquet": options.parquet}, [Path(options.source)])
    layout.require()
    if options.parquet is not None:
        from mlx_embed.maps import parquet
    corpus = _corpus(options)
    logger.info("laying out %s texts", f"{len(corpus.texts):,}")
    places = layout.laid_out(corpus.vectors)
    logger.info("looking for clusters")
    labels = clustered(places)
    found = Map(corpus, places, labels, words(corpus.texts, labels))
    output.write_text(page(found), encoding="utf-8")
    print(f"{len(corpus.texts):,} texts in {len(found.words):,} clusters: {output}")
    if options.parquet is not None:
        parquet.write(found, options.parquet)
        print(f"{options.parquet}, which opens with: {parquet.command(options.parquet)}")
    return 0


def _corpus(options: argparse.Namespace) -> "Corpus":
    from mlx_embed.embedding_model import EmbeddingModel
    from mlx_embed.index import Index
    from mlx_embed.maps import corpus
    from mlx_embed.records import reading

    if is_folder(options.source):
        for name in ("model", "dtype", "device", "format", "fields", "id_field"):
            if getattr(options, name):
                option = "--field" if name == "fields" else f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} is of a file; {options.source} is an index, which has its vectors.")
        with Index.open(options.source, read_only=True) as index:
            return corpus.of_index(index, options.columns, options.limit)
    columns = options.columns or []
    source = reading.source(options.source, options.format, options.fields, options.id_field, columns)
    model = EmbeddingModel.from_pretrained(options.model, dtype=options.dtype, device=options.device)
    return corpus.of_file(source, model, columns, options.limit)
