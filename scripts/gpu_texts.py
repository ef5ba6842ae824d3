"""The sides of `bench_gpu.py` that begin with strings: end to end, one query, tokenizers alone, and a pool of GPUs."""

import json
import statistics
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 5
QUERIES = 300
Figures = dict[str, float]


def cranfield(folder: Path, count: int) -> list[str]:
    """So many texts: Cranfield's documents, again and again, cut to 40 up to 99 words."""
    lines = (json.loads(line) for line in (folder / "docs.jsonl").open())
    words = [f"{line.get('title', '')} {line['text']}".split() for line in lines]
    return [" ".join(text[: 40 + i % 60]) for i, text in enumerate(islice(cycle(words), count))]


def queries(texts: list[str]) -> list[str]:
    """Beginnings of texts, of 4 to 15 words."""
    return [" ".join(text.split()[: 4 + i % 12]) for i, text in enumerate(islice(cycle(texts), QUERIES))]


def rate(run: Callable[[list[str]], Any], corpus: list[str], rounds: int = ROUNDS) -> float:
    """Texts a second, the median of some rounds."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run(corpus)
        seconds.append(time.perf_counter() - start)
    return len(corpus) / statistics.median(seconds)


def first_pass(model: Path, corpus: list[str]) -> Figures:
    """What a process does first, from the import on."""
    start = time.perf_counter()
    from mlx_embed import EmbeddingModel

    imported = time.perf_counter()
    loaded = EmbeddingModel.from_pretrained(model)
    begun = time.perf_counter()
    loaded.encode(corpus)
    done = time.perf_counter()
    return {
        "import, s": imported - start,
        "load, s": begun - imported,
        "texts/s, first pass": len(corpus) / (done - begun),
        "texts/s, first pass with import and load": len(corpus) / (done - start),
    }


def texts(model: Path, corpus: list[str]) -> Figures:
    """Passes after the first, with whatever tokenizer there is, and with `tokenizers` alone."""
    from mlx_embed import EmbeddingModel

    loaded = EmbeddingModel.from_pretrained(model)
    loaded.encode(corpus)
    figures = {"texts/s": rate(loaded.encode, corpus)}
    fast = loaded.tokenizer.fast is not None and loaded.tokenizer.fast.active
    if fast:
        loaded.tokenizer.fast = None
        figures["texts/s, tokenized by tokenizers"] = rate(loaded.encode, corpus)
        figures["times as many with nanotoken"] = figures["texts/s"] / figures["texts/s, tokenized by tokenizers"]
    return figures


def query(model: Path, corpus: list[str]) -> Figures:
    """Single queries, from the string, and from ids to the vector, in the same process."""
    from mlx_embed import EmbeddingModel

    loaded = EmbeddingModel.from_pretrained(model)
    loaded.encode(corpus[:2000])  # enough for the tokenizer to be chosen
    asked = queries(corpus)
    engine, head = loaded.engine, loaded.head()
    ids = [loaded.tokenizer([text]).ids for text in asked]

    def from_ids(row: Any) -> Any:
        return engine.near(lambda: engine.gather(engine.batches(row, engine.budget(None)), head, bool).result())

    figures: Figures = {}
    for name, run, given in 2 * (("string", loaded.encode, asked), ("ids", from_ids, ids)):
        again = ", again" if f"one query from its {name}, ms, median" in figures else ""
        for one in given * (3 if again else 1):  # a GPU, and a core, take a while to get to their full clocks
            run(one)
        seconds = []
        for one in given:
            start = time.perf_counter()
            run(one)
            seconds.append(time.perf_counter() - start)
        figures[f"one query from its {name}, ms, median{again}"] = statistics.median(seconds) * 1e3
        figures[f"one query from its {name}, ms, p90{again}"] = float(np.quantile(seconds, 0.9)) * 1e3
    return figures


def tokenizer(model: Path, corpus: list[str]) -> Figures:
    """Strings to ids."""
    from tokenizers import Tokenizer

    from mlx_embed.checkpoint import read_checkpoint
    from mlx_embed.texts import windows
    from mlx_embed.tokenizer import Tokenizer as Ours

    library = Tokenizer.from_file(str(model / "tokenizer.json"))
    library.no_truncation()
    library.no_padding()
    library.encode_batch_fast(corpus[:1000])
    figures = {"texts/s, tokenizers": rate(library.encode_batch_fast, corpus, 3)}
    ours = Ours(read_checkpoint(model), 256)
    if ours.fast is not None:
        ours.fast.prepare()
        if ours.fast.active:
            parts = list(windows(corpus, len))
            figures["texts/s, nanotoken"] = rate(lambda _: [ours(part) for part in parts], corpus)
    return figures


def pool(model: Path, corpus: list[str]) -> Figures:
    """A process for each GPU, and one process, in turn, on the same texts."""
    from mlx_embed import EmbeddingModel
    from mlx_embed.jobs import Pool

    one = EmbeddingModel.from_pretrained(model)
    with Pool(model) as several:
        for run in (several.encode, one.encode):
            run(corpus)
            run(corpus)
        rates: dict[str, list[float]] = {"one process": [], "pool": []}
        for _ in range(ROUNDS):
            rates["one process"].append(rate(one.encode, corpus, 1))
            rates["pool"].append(rate(several.encode, corpus, 1))
        alone, together = (statistics.median(found) for found in rates.values())
        difference = float(np.abs(several.encode(corpus[:5000]) - one.encode(corpus[:5000])).max())
        workers = several.workers
    return {
        "GPUs": workers,
        "texts/s, one process": alone,
        "texts/s, the pool": together,
        "times as many": together / alone,
        "largest difference of a vector's number": difference,
    }
