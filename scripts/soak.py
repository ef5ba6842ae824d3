#!/usr/bin/env python3
"""Encode a long stream of ragged texts and watch that memory and compiled graphs stay flat.

    python scripts/soak.py [--model FOLDER_OR_NAME] [--texts 100000] [--device cpu] [--engine graph]

One call of `encode` on a generator of random texts of 1 to 300 words, half of them under 18. A line is printed each
10,000 texts read: the process's memory without the vectors that `encode` will return, MLX's peak and cached memory, and
how many graphs were compiled. Exits with 1 where, over the last third of the texts, memory of the process or MLX's peak
grows by more than 32 MiB, where more than 10 graphs are compiled in it, or where there are ever more graphs than
the engine's `shapes` states.
"""

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from os import getpid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import mlx.core as mx  # noqa: E402

from mlx_embed import EmbeddingModel  # noqa: E402
from mlx_embed.engine import ENGINES  # noqa: E402

MIB = 2**20
MARGIN = 32  # MiB
NEW_GRAPHS = 10
STEP = 10_000
WORDS = 20_000
LONGEST = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "tests/data/tiny-bert"))
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--device", help='"cpu", "gpu", "metal" or "cuda"; MLX\'s default without it')
    parser.add_argument("--engine", default="auto", choices=ENGINES)
    parser.add_argument("--batch-tokens", type=int)
    options = parser.parse_args()
    if options.texts < 3 * STEP:
        parser.error(f"--texts needs at least {3 * STEP}, to have a last third to look at.")

    model = EmbeddingModel.from_pretrained(options.model, device=options.device, engine=options.engine)
    engine: Any = model.engine
    compiled = getattr(engine, "compiled", False)
    stated = len(engine.shapes(engine.budget(options.batch_tokens), model.max_seq_length)) if compiled else 0
    how = f"{engine.name} engine, " + (f"at most {stated} graphs" if compiled else "not compiled")
    print(f"{model}, {how}\n")
    graphs = count_graphs(engine) if compiled else []
    print(f"{'texts':>8} {'seconds':>8} {'process MiB':>12} {'MLX peak MiB':>13} {'MLX cache MiB':>14} {'graphs':>7}")
    reports: list[tuple[float, float, int]] = []
    start = time.perf_counter()

    def texts() -> Iterator[str]:
        rng = random.Random(0)
        words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 10))) for _ in range(WORDS)]
        for done in range(1, options.texts + 1):
            yield " ".join(rng.choices(words, k=round(LONGEST ** rng.random())))
            if done % STEP == 0:
                # The vectors of the last windows are not there yet: a constant, of no matter to the growth.
                process = resident() - done * model.dimension * 4 / MIB
                peak, cache = mx.get_peak_memory() / MIB, mx.get_cache_memory() / MIB
                reports.append((process, peak, len(graphs)))
                seconds = time.perf_counter() - start
                shown = str(len(graphs)) if compiled else "-"
                print(f"{done:8} {seconds:8.1f} {process:12.1f} {peak:13.1f} {cache:14.1f} {shown:>7}", flush=True)

    vectors = model.encode(texts(), batch_tokens=options.batch_tokens)
    print(f"\n{vectors.shape} vectors in {time.perf_counter() - start:.1f} s, {len(graphs) or 'no'} graphs at the end")
    sys.exit("\n".join(failures(reports, len(graphs), stated)) or 0)


def count_graphs(engine: Any) -> list[Any]:
    """A list that grows by one whenever a graph is compiled: only then does a compiled engine call its encoder."""
    graphs: list[Any] = []
    encoder = engine.encoder

    def traced(input_ids: Any, cu_seqlens: Any, max_seqlen: int) -> Any:
        graphs.append((input_ids.shape, cu_seqlens.shape, max_seqlen))
        return encoder(input_ids, cu_seqlens, max_seqlen)

    engine.encoder = traced
    return graphs


def resident() -> float:
    """The process's resident memory in MiB."""
    found = subprocess.run(["ps", "-o", "rss=", "-p", str(getpid())], capture_output=True, text=True, check=True)
    return int(found.stdout) / 1024


def failures(reports: list[tuple[float, float, int]], graphs: int, stated: int) -> list[str]:
    """What grew over the last third of the reports, one line each."""
    before, last = reports[: -(-2 * len(reports) // 3)], reports[-1]
    found = []
    for place, name in enumerate(["The process", "MLX's peak"]):
        growth = last[place] - max(report[place] for report in before)
        print(f"{name} grew by {max(growth, 0):.1f} MiB over the last third.")
        if growth > MARGIN:
            found.append(f"{name} grew by more than {MARGIN} MiB.")
    if graphs - before[-1][2] > NEW_GRAPHS:
        found.append(f"{graphs - before[-1][2]} graphs were compiled in the last third, more than {NEW_GRAPHS}.")
    if graphs > stated:
        found.append(f"{graphs} graphs were compiled, where at most {stated} are stated.")
    return found


if __name__ == "__main__":
    main()
