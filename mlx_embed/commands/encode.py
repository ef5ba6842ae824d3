"""Embed the texts of a file, one a line or in JSONL, CSV or Parquet, into a file of vectors."""

import argparse
import hashlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_embed.checkpoint import DEFAULT_MODEL
from mlx_embed.engine.device import NATIVE_DTYPES
from mlx_embed.records.options import add_fields
from mlx_embed.records.reading import FORMATS, Record
from mlx_embed.vector_dtypes import OUTPUT_DTYPES

if TYPE_CHECKING:
    from mlx_embed import EmbeddingModel, EncodeInfo
    from mlx_embed.records.reading import Source
    from mlx_embed.records.writing import Partial
    from mlx_embed.serve.client import ServedModel

logger = logging.getLogger("mlx_embed")

# Texts, and characters, between two points from which a run can go on. They are counted from the file's beginning, so
# that a run that goes on makes the same batches, and so the same vectors to the last bit.
PART = 4096
PART_CHARACTERS = 2**21


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
        "--sparse", action="store_true", help="weights of tokens, by a sparse model; OUT.npz (CSR) or OUT.jsonl"
    )
    kind.add_argument(
        "--multi-vector", action="store_true", help="a vector a token, by a ColBERT model; OUT.npz or OUT.jsonl"
    )
    parser.add_argument(
        "--task", choices=("document", "query"), help="with --sparse and --multi-vector, what the texts are (document)"
    )


@dataclass
class Totals:
    """What was done, over all runs that wrote a file.

    Attributes:
        texts: how many.
        tokens: before truncation.
        cut: texts that were longer than the model takes.
        first_cut: place and tokens of the first of them.
        digest: of the texts and ids so far, by which a run that goes on knows that it reads the same.
        ranges: [2, D], of "int8" and "uint8".
    """

    texts: int = 0
    tokens: int = 0
    cut: int = 0
    first_cut: str = ""
    digest: str = ""
    ranges: Any = None


def run(options: argparse.Namespace) -> int:
    """Embed, and say what was done."""
    if options.sparse or options.multi_vector:
        from mlx_embed.records import kinds

        say(kinds.write(options))
        return 0
    from mlx_embed.records import reading, writing

    if options.task is not None:
        raise ValueError("--task is of --sparse and --multi-vector; for a text's vector --prompt-name says it.")
    if options.server is not None:
        _check_servers_own(options)
    source = reading.source(options.file, options.format, options.fields, options.id_field)
    target = None if options.output is None else writing.checked_target(options.output)
    if target is None and options.resume:
        raise ValueError("--resume goes on with a file: name it with -o.")
    if target is not None and source.path is not None and target.exists() and target.samefile(source.path):
        raise ValueError(f"{target} is the file of texts; write the vectors to another.")
    records = reading.records(source)
    # The first text shows most of what can be wrong with a file, before a model is loaded.
    records = chain([record for record in [next(records, None)] if record is not None], records)
    with nullcontext() if target is None else writing.Partial(target) as partial:
        try:
            model = _model(options)
            encoding = Encoding(model, options, source, partial)
            start = time.perf_counter()
            encoding.run(records)
        except BaseException:
            if partial is not None and partial.journal.rows:
                say(f"{partial.journal.rows:,} texts are done and kept; the same command with --resume goes on.")
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


def _model(options: argparse.Namespace) -> "EmbeddingModel | ServedModel":
    if options.server is None:
        from mlx_embed.embedding_model import EmbeddingModel

        return EmbeddingModel.from_pretrained(options.model, dtype=options.dtype, device=options.device)
    from mlx_embed.checkpoint.hub import served_name
    from mlx_embed.serve.client import connect
    from mlx_embed.serve.keys import read_keys

    key = None if options.api_key_file is None else read_keys(options.api_key_file)[0]
    return connect(options.server, options.model and served_name(options.model), key)


class Encoding:
    """One run of the command.

    Attributes:
        totals: what was done so far.
    """

    def __init__(
        self,
        model: "EmbeddingModel | ServedModel",
        options: argparse.Namespace,
        source: "Source",
        partial: "Partial | None",
    ) -> None:
        self._model, self._options, self._source, self._partial = model, options, source, partial
        self._how: dict[str, Any] = {name: getattr(options, name) for name in ("prompt_name", "truncate_dim")}
        self._written: list[Any] = []
        self._before = 0
        self.totals = Totals()

    def run(self, records: Iterator[Record]) -> None:
        """Embed what a run before this one has not, a part at a time, and put the file in its place."""
        from mlx_embed.records import reading
        from mlx_embed.texts import progress, watched

        empty = self._quantized(self._encoded([])[0])
        digest = hashlib.blake2b(digest_size=16)
        self._width, self._dtype = empty.shape[1], empty.dtype
        self.totals.ranges = self._given_ranges()
        if self._partial is not None:
            self._partial.begin(self._plan(), self._width, self._dtype, self._options.resume)
            if self._partial.journal.state:
                self.totals = Totals(**self._partial.journal.state)
            self._skip(records, digest)
        self._before = self.totals.texts
        total = reading.count(self._source) if watched() else None
        with progress(None, total, done=self._before):
            for part in parts(records):
                self._embed(part, digest)
        if self._partial is not None:
            self._finish(self._partial)

    def report(self, seconds: float) -> None:
        """Say on stderr what was done, which texts were cut, and what else there is to know."""
        totals, model = self.totals, self._model
        if totals.cut:
            say(
                f"{totals.cut:,} of {totals.texts:,} texts are longer than the model's {model.max_seq_length} tokens, "
                f"and only their beginning was embedded; the first is {totals.first_cut} tokens. "
                "--long-text mean_of_chunks embeds all of them."
            )
        prompts = model.prompts
        if prompts and self._options.prompt_name is None and model.default_prompt_name is None:
            say(f"No prompt was put before the texts; the model has {', '.join(prompts)}: see --prompt-name.")
        done = totals.texts - self._before
        say(
            f"{totals.texts:,} texts, {totals.tokens:,} tokens, by {model.name}: {self._dtype} "
            f"[{totals.texts}, {self._width}] to {', '.join(map(str, self._written)) or 'standard output'}; "
            f"{done:,} of them in {seconds:.1f} s ({done / max(seconds, 1e-9):,.0f} texts/s)."
        )

    def _encoded(self, texts: list[str]) -> "tuple[Any, EncodeInfo]":
        from mlx_embed import EmbeddingModel, TruncationWarning

        if not isinstance(self._model, EmbeddingModel):
            return self._model.encode(texts, **self._how)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # `report` says it, of the whole file
            return self._model.encode(texts, return_info=True, long_text=self._options.long_text, **self._how)

    def _embed(self, part: list[Record], digest: Any) -> None:
        vectors, info = self._encoded([record.text for record in part])
        add_digest(digest, part)
        totals = self.totals
        totals.texts += len(part)
        totals.tokens += int(info.token_counts.sum())
        totals.digest = digest.hexdigest()
        if info.truncated.any() and not totals.cut:
            first = int(info.truncated.argmax())
            totals.first_cut = f"{part[first].place}, with {info.token_counts[first]}"
        totals.cut += int(info.truncated.sum())
        coded = self._quantized(vectors)
        if self._partial is not None:
            self._partial.append(coded, [record.id for record in part], asdict(totals))
        else:
            self._print(coded, part)

    def _quantized(self, vectors: Any) -> Any:
        """The vectors in the dtype asked for; the first decide the ranges, where there are none."""
        import numpy as np

        from mlx_embed.vector_dtypes import quantize, ranges_of

        kind = self._options.output_dtype
        if kind in ("int8", "uint8") and len(vectors):
            if self.totals.ranges is None:
                self.totals.ranges = ranges_of(vectors).tolist()
            return quantize(vectors, kind, np.array(self.totals.ranges, dtype=np.float32))
        return quantize(vectors, kind)

    def _given_ranges(self) -> Any:
        import numpy as np

        from mlx_embed.vector_dtypes import checked_ranges

        kind, file = self._options.output_dtype, self._options.ranges
        if kind not in ("int8", "uint8"):
            return None
        if file is None:
            if self._partial is None:
                raise ValueError(
                    f"--output-dtype {kind} needs --ranges FILE, or -o OUT to keep those of the texts beside."
                )
            return None
        try:
            return checked_ranges(kind, self._width, np.load(file), None).tolist()  # type: ignore[union-attr]
        except (ValueError, OSError) as error:
            raise ValueError(f"--ranges {file}: {error}") from error

    def _print(self, vectors: Any, part: list[Record]) -> None:
        from mlx_embed.records import writing

        if sys.stdout is None:
            raise ValueError("There is no standard output; name a file with -o.")
        ids = iter([record.id for record in part if record.id is not None])
        for line in writing.lines([vectors], ids if part[0].id is not None else None):
            sys.stdout.write(line.decode())

    def _finish(self, partial: "Partial") -> None:
        import numpy as np

        from mlx_embed.records import writing

        beside = []
        if self.totals.ranges is not None and self._options.ranges is None:
            beside = [partial.target.with_suffix(".ranges.npy")]
            with writing.replacing(beside[0]) as file:
                np.save(file, np.array(self.totals.ranges, dtype=np.float32))
        logger.info("Writing %s.", partial.target)
        self._written = [*partial.finish(), *beside]

    def _skip(self, records: Iterator[Record], digest: Any) -> None:
        """Read over the texts that are done, which must be those that the file still begins with."""
        count = self.totals.texts
        for number in range(count):
            record = next(records, None)
            if record is None:
                raise ValueError(f"{self._source.name} has {number} texts, of which {count} were done; start over.")
            add_digest(digest, [record])
        if count and digest.hexdigest() != self.totals.digest:
            raise ValueError(
                f"{self._source.name} has other texts or ids among its first {count} than those that were done; start "
                "over without --resume."
            )
        if count:
            say(f"{count:,} texts are done already.")

    def _plan(self) -> dict[str, Any]:
        """What must be the same for two runs to write one file; JSON values."""
        from mlx_embed import EmbeddingModel, __version__
        from mlx_embed.checkpoint import safetensors

        model, options = self._model, self._options
        if isinstance(model, EmbeddingModel):
            files = [path.stat() for path in safetensors.files(model.checkpoint.transformer)]
            computed: dict[str, Any] = {
                "state of the weights": [[file.st_size, file.st_mtime_ns] for file in files],
                "engine": [model.engine.name, str(model.device), str(model.dtype)],
            }
        else:
            computed = {"server": model.url}
        return {
            "version of mlx-embed": __version__,
            "model": model.name,
            **computed,
            "long_text": options.long_text,
            "max_seq_length": model.max_seq_length,
            "shape or dtype": [self._width, str(self._dtype), options.output_dtype],
            "file of ranges": self.totals.ranges,
            **self._how,
        }


def parts(records: Iterator[Record]) -> Iterator[list[Record]]:
    """The records in lists of at most PART of them or PART_CHARACTERS, all but the last as long as that."""
    part: list[Record] = []
    characters = 0
    for record in records:
        part.append(record)
        characters += len(record.text)
        if len(part) == PART or characters >= PART_CHARACTERS:
            yield part
            part, characters = [], 0
    if part:
        yield part


def add_digest(digest: Any, part: list[Record]) -> None:
    """Take the texts and ids into a hash."""
    for record in part:
        digest.update(repr((record.id, len(record.text))).encode())
        digest.update(record.text.encode("utf-8", "surrogatepass"))


def say(sentence: str) -> None:
    """A line on stderr, if there is one."""
    if sys.stderr is not None:
        print(sentence, file=sys.stderr)
