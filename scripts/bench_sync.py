"""Which part of the time that an index of short files takes is spent in `encode`, and how long a look at them takes.

PYTHONPATH=. python scripts/bench_sync.py [FILES] [MODEL]
"""

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlx_embed import EmbeddingModel
from mlx_embed.index import Index
from mlx_embed.index.chunks import Chunking

WORDS = ["the", "wing", "of", "an", "aircraft", "stalls", "when", "flow", "separates", "and", "lift", "is", "lost"]


def main(files: int, model: EmbeddingModel) -> None:
    chance = random.Random(0)
    model.encode(["warm"] * 64)
    seconds = {"encode": 0.0}
    encode = model.encode_document

    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return encode(*arguments, **options)
        finally:
            seconds["encode"] += time.perf_counter() - start

    model.encode_document = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(files):
            path = Path(folder, "root", str(number % 100), f"{number}.md")
            path.parent.mkdir(parents=True, exist_ok=True)
            body = " ".join(chance.choices(WORDS, k=chance.randrange(20, 160)))
            path.write_text(f"# Note {number}\n\n{body}\n")
        time.sleep(2.1)  # else the files would be read again: they might have changed at the same tick
        with Index.create(Path(folder, "index"), model, chunker=Chunking.checked(model).name) as index:
            start = time.perf_counter()
            summary = index.sync(Path(folder, "root"))
            seconds["all"] = time.perf_counter() - start
            looks = []
            for _ in range(5):
                start = time.perf_counter()
                again = index.sync(Path(folder, "root"))
                looks.append(time.perf_counter() - start)
            assert again.unchanged == files
    print(f"{summary} ({summary.chunks:,} chunks)")
    share = seconds["encode"] / seconds["all"]
    print(f"all {seconds['all']:.2f} s, of which encode {seconds['encode']:.2f} s: {share:.1%}")
    print(f"{1e3 * (seconds['all'] - seconds['encode']) / files:.3f} ms a file beside encode")
    print(f"nothing changed: {np.median(looks) * 1e3:.0f} ms")


if __name__ == "__main__":
    chosen = sys.argv[2] if len(sys.argv) > 2 else None
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, EmbeddingModel.from_pretrained(chosen, device="cpu"))
