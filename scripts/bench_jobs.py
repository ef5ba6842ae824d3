"""Texts a second of one process, of a pool of processes, and of Ray's actors, on this machine's CPU.

PYTHONPATH=. python scripts/bench_jobs.py [TEXTS] [WORKERS] [MODEL]
"""

import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mlx_embed import EmbeddingModel
from mlx_embed.jobs import Pool, embed

ROUNDS = 3


def seconds(encode: Callable[[], Any]) -> float:
    """The median of some calls, after one that is not counted."""
    encode()
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        encode()
        found.append(time.perf_counter() - start)
    return float(np.median(found))


def main(count: int, workers: int, name: str | None) -> None:
    chance = random.Random(0)
    words = ["the", "wing", "of", "an", "aircraft", "stalls", "when", "flow", "separates", "and", "lift", "is", "lost"]
    texts = [" ".join(chance.choices(words, k=chance.randrange(5, 100))) for _ in range(count)]
    model = EmbeddingModel.from_pretrained(name, device="cpu")
    one = count / seconds(lambda: model.encode(texts))
    print(f"one process: {one:,.0f} texts/s (medians of {ROUNDS})", flush=True)
    piece = max(count // workers // 4, 1)
    with Pool(name or model.name, workers=workers, piece=piece, device="cpu") as pool:
        several = count / seconds(lambda: pool.encode(texts))
    print(f"a pool of {workers}: {several:,.0f} texts/s, {several / one:.2f} times as many", flush=True)
    try:
        import ray
    except ImportError:
        return print("Ray is not installed.")
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", num_cpus=2 * workers)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Each run starts its actors: the difference of a long and a short one has no start in it.
    short, long = (on_ray(ray, name or model.name, texts * times, workers, piece) for times in (1, 4))
    actors = 3 * count / (long - short)
    print(f"{workers} actors of Ray: {actors:,.0f} texts/s, {actors / one:.2f} times as many; their start apart")
    print(f"{count:,} texts with the start of the actors: {short:.1f} s")


def on_ray(ray: Any, name: str, texts: list[str], workers: int, piece: int) -> float:
    dataset = ray.data.from_items([{"text": text} for text in texts], override_num_blocks=4 * workers).materialize()
    strategy = ray.data.ActorPoolStrategy(size=workers)
    options: Any = {"compute": strategy, "batch_size": piece, "load": {"device": "cpu"}}
    return seconds(embed(dataset, model=name, **options).materialize)


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:3]]
    main(*(arguments + [2000, 2][len(arguments) :]), sys.argv[3] if len(sys.argv) > 3 else None)
