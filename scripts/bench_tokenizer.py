#!/usr/bin/env python3
"""Time the tokenizer of a checkpoint as `encode` uses it beside the tokenizers library, in one run.

    python scripts/bench_tokenizer.py [--model FOLDER | --kind KIND] [--threads all one] [--json FILE]

"nano" needs the extra `fast`, "pieces" the native kernels. KIND is a tokenizer that is trained on the documentation:
xlm-roberta, for example. Texts are made of what is on the machine: the documentation and the source of Python's own
library, in documents of some 500 characters, in sentences and in queries; names of ideographs' characters stand for
Chinese and Japanese. Every side runs in a process of its own for each number of threads (RAYON_NUM_THREADS,
MLX_EMBED_NUM_THREADS), on windows of 2,048 texts as `encode` takes them: a median of seven passes, and the first of
all. One query is the median of 300, called one by one. "arrays" is `tokenizers` with its ids put into one array,
"lists" what `encode_batch_fast` gives, whose ids are Python lists, as before.
"""

import argparse
import json
import os
import pydoc
import random
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
WINDOW = 2048
TEXTS = 8192
ROUNDS = 7
SIDES = ("lists", "arrays", "nano", "pieces")
THREADS = {"one": "1", "all": ""}


def main() -> None:
    from tests.conftest import minilm_folder
    from tests.mlx_embed.tokenizer import trained

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=minilm_folder(), help="a checkpoint's folder")
    parser.add_argument("--kind", choices=trained.KINDS, help="a trained tokenizer instead")
    parser.add_argument("--threads", nargs="+", choices=THREADS, default=list(THREADS))
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(side(options.side, options.model, options.kind)))
        return
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for threads in options.threads:
        figures[threads] = {}
        for name in SIDES:
            environment = os.environ | {"RAYON_NUM_THREADS": THREADS[threads], "TOKENIZERS_PARALLELISM": "true"}
            environment["MLX_EMBED_NUM_THREADS"] = THREADS[threads]
            command = [sys.executable, __file__, "--side", name, "--model", str(options.model)]
            command += ["--kind", options.kind] if options.kind else []
            run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            figures[threads][name] = json.loads(run.stdout.splitlines()[-1])
        print(f"\n{threads} threads" if threads == "all" else "\none thread")
        for row in figures[threads]["lists"]:
            values = [figures[threads][name].get(row) for name in SIDES]
            base, *others = values[0], *values[2:]
            ratio = "".join(
                f"{'-':>9}" if not v or not base else f"{v / base if '/s' in row else base / v:8.1f}x" for v in others
            )
            print(f"{row:32}" + "".join(f"{'-' if v is None else f'{v:,.1f}':>14}" for v in values) + ratio, flush=True)
        print(f"{'':32}" + "".join(f"{name:>14}" for name in SIDES))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def side(name: str, folder: Path, kind: str | None) -> dict[str, float]:
    """Texts per second of each corpus, and the microseconds of one query."""
    from mlx_embed.checkpoint import read_checkpoint
    from mlx_embed.tokenizer import Tokenizer, framed
    from mlx_embed.tokenizer.fast import FastTokenizer
    from mlx_embed.tokenizer.pairs import PairFrame, PairTokenizer
    from tests.mlx_embed.tokenizer import trained

    tokenizer, pairs = Tokenizer(read_checkpoint(folder), 256), PairTokenizer(read_checkpoint(folder), 256)
    if name == "pieces":
        sys.modules["nanotoken"] = None  # type: ignore[assignment]
    if kind:
        tokenizer._tokenizer = pairs._texts._tokenizer = trained.library(kind, 8000)
        tokenizer._frame, pairs._frame = framed(tokenizer.library), PairFrame.of(tokenizer.library, True)
    for one in (pairs._texts, tokenizer):
        start = time.perf_counter()
        one.fast = None
        if name in ("nano", "pieces"):
            one.fast = FastTokenizer(one.library, one._frame, folder)
            one.fast.prepare()
            if one.fast.name != name:
                return {}
        loading = 1000 * (time.perf_counter() - start)

    def make(texts: list[Any]) -> Any:
        of_pairs = isinstance(texts[0], tuple)
        if name == "lists" and of_pairs:
            return [(x.ids, x.type_ids) for x in cutting.encode_batch(texts, add_special_tokens=True)]
        if name == "lists":
            return [x.ids for x in tokenizer.library.encode_batch_fast(texts, add_special_tokens=True)]
        return pairs(texts) if of_pairs else tokenizer(texts)

    cutting = copy(tokenizer.library)
    cutting.enable_truncation(256)
    found: dict[str, float] = {}
    everything = corpora()
    paired = {"pairs of a reranker": list(zip(everything["queries"], everything["documents"], strict=True))}
    for title, texts in (everything | paired).items():
        windows = [texts[start : start + WINDOW] for start in range(0, len(texts), WINDOW)]
        for row, made in (("first pass", once), ("", median)):
            seconds = made(lambda windows=windows: [make(window) for window in windows])
            found[f"{title}{', ' * bool(row)}{row}, texts/s"] = len(texts) / seconds
    queries = everything["queries"][:300]
    for query in queries:
        make([query])
    found["one query, us"] = 1e6 * statistics.median(once(lambda query=query: make([query])) for query in queries)
    found["load and compare, ms"] = loading
    return found


def once(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median(run: Callable[[], Any]) -> float:
    return statistics.median(once(run) for _ in range(ROUNDS))


def corpora() -> dict[str, list[str]]:
    """Texts by kind, the same in every run on one installation."""
    rng = random.Random(0)
    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    code = cut("\n".join(path.read_text(errors="ignore") for path in library), 500)
    topics = __import__("pydoc_data.topics").topics.topics
    prose = pydoc.plain("\n".join(topics[key] for key in sorted(topics)))
    words = prose.split()
    sentences = [sentence.strip() for sentence in prose.replace("\n", " ").split(". ") if sentence.strip()]
    ideographs = [chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(2000)] + [chr(c) for c in range(0x3041, 0x3097)]
    cjk = ["".join(rng.choices(ideographs, k=rng.randrange(20, 200))) + "。" for _ in range(TEXTS)]
    queries = [" ".join(words[at : at + rng.randrange(3, 9)]) for at in rng.sample(range(len(words) - 9), TEXTS)]
    documents = cut(prose, 500)
    return {
        "documents": repeated(documents),
        "sentences": repeated(sentences),
        "queries": queries,
        "code": repeated(code),
        "ideographs": cjk,
    }


def cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def repeated(texts: list[str]) -> list[str]:
    """So many texts: those given, each time begun a word later, so that none is there twice."""
    out: list[str] = []
    turn = 0
    while len(out) < TEXTS:
        out += [text[5 * turn :] for text in texts]
        turn += 1
    return out[:TEXTS]


if __name__ == "__main__":
    main()
