"""A run of `mlx-embed encode`: a vector a text, by a model here or a server's; ended, it goes on where it was."""

import argparse
import hashlib
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlx_embed.progress import counted
from mlx_embed.records.reading import Record

if TYPE_CHECKING:
    from mlx_embed import EmbeddingModel, EncodeInfo
    from mlx_embed.records.reading import Id, Source
    from mlx_embed.records.writing import Partial
    from mlx_embed.serve.client import ServedModel

logger = logging.getLogger("mlx_embed")

# Texts, and characters, between two points from which a run can go on. They are counted from the file's beginning, so
# that a run that goes on makes the same batches, and so the same vectors to the last bit.
PART = 4096
PART_CHARACTERS = 2**21


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


class Encoding:
    """One run of the command.

    Attributes:
        totals: what was done so far.
    """

    def __init__(
        self,
        model: Any,
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

        digest = hashlib.blake2b(digest_size=16)
        self._begin()
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

    def _begin(self) -> None:
        """Find out what vectors look like, and that the options suit it."""
        empty = self._quantized(self._encoded([])[0])
        self._width, self._dtype = empty.shape[1], empty.dtype
        self.totals.ranges = self._given_ranges()

    def report(self, seconds: float) -> None:
        """Say on stderr what was done, which texts were cut, and what else there is to know."""
        totals, model = self.totals, self._model
        if totals.cut:
            say(
                f"{totals.cut:,} of {totals.texts:,} texts are longer than the model's {model.max_seq_length} tokens, "
                f"and only their beginning was embedded; the first is {totals.first_cut} tokens.{self._instead}"
            )
        self._say_prompts()
        done, where = totals.texts - self._before, ", ".join(map(str, self._written)) or "standard output"
        say(
            f"{counted(totals.texts, 'text')}, {counted(totals.tokens, 'token')}, by {model.name}: "
            f"{self._made()} to {where}; "
            f"{done:,} of them in {seconds:.1f} s ({done / max(seconds, 1e-9):,.0f} texts/s)."
        )

    @property
    def _instead(self) -> str:
        """What to do about texts that were cut; a server knows nothing else."""
        return "" if self._options.server is not None else " --long-text mean_of_chunks embeds all of them."

    def _say_prompts(self) -> None:
        prompts = self._model.prompts
        if prompts and self._options.prompt_name is None and self._model.default_prompt_name is None:
            say(f"No prompt was put before the texts; the model has {', '.join(prompts)}: see --prompt-name.")

    def _made(self) -> str:
        return f"{self._dtype} [{self.totals.texts}, {self._width}]"

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
            with open(file, "rb") as opened:
                given = np.lib.format.read_array(opened)
            return checked_ranges(kind, self._width, given, None).tolist()  # type: ignore[union-attr]
        except Exception as error:  # numpy has many kinds for a header that is damaged
            raise ValueError(f"--ranges {file}: {error}") from error

    def _print(self, vectors: Any, part: list[Record]) -> None:
        if sys.stdout is None:
            raise ValueError("There is no standard output; name a file with -o.")
        ids = iter([record.id for record in part if record.id is not None])
        for line in self._lines(vectors, ids if part[0].id is not None else None):
            sys.stdout.write(line.decode())

    def _lines(self, vectors: Any, ids: "Iterator[Id] | None") -> Iterator[bytes]:
        from mlx_embed.records import writing

        return writing.lines([vectors], ids)

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
            say(f"{counted(count, 'text')} {'is' if count == 1 else 'are'} done already.")

    def _plan(self) -> dict[str, Any]:
        """What must be the same for two runs to write one file; JSON values."""
        model, options = self._model, self._options
        return {
            **computed_by(model),
            "long_text": options.long_text,
            "task": options.task,
            "max_seq_length": model.max_seq_length,
            "shape or dtype": [self._width, str(self._dtype), options.output_dtype],
            "file of ranges": self.totals.ranges,
            **self._how,
        }


def computed_by(model: Any) -> dict[str, Any]:
    """What computes, for a plan: a loaded model, or one of a server."""
    from mlx_embed import __version__
    from mlx_embed.serve.client import ServedModel

    named = {"version of mlx-embed": __version__, "model": model.name}
    if isinstance(model, ServedModel):
        return named | {"server": model.url, "state of the server's model": model.state}
    engine = model.engine
    return named | {
        "state of the model's files": model.checkpoint.state,
        "engine": [engine.name, str(engine.device), str(engine.dtype)],
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


def opened_model(options: argparse.Namespace) -> "EmbeddingModel | ServedModel":
    """The model that is named, loaded, or one of the server that is named."""
    if options.server is None:
        from mlx_embed.embedding_model import EmbeddingModel

        return EmbeddingModel.from_pretrained(
            options.model, dtype=options.dtype, device=options.device, task=options.task
        )
    return served(options)


def served(options: argparse.Namespace, **wanted: Any) -> "ServedModel":
    """The model of the server that is named; `wanted` are those of `connect`."""
    from mlx_embed.checkpoint.hub import served_name
    from mlx_embed.serve.client import connect
    from mlx_embed.serve.keys import read_keys

    key = None if options.api_key_file is None else read_keys(options.api_key_file)[0]
    return connect(options.server, options.model and served_name(options.model), key, **wanted)


def say(sentence: str) -> None:
    """A line on stderr, if there is one."""
    if sys.stderr is not None:
        print(sentence, file=sys.stderr)
