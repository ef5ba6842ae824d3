#!/usr/bin/env python3
"""How near int8 on a CPU comes to float32, text by text, and what choosing its layers costs at the first load.

    python scripts/bench_int8.py [--model FOLDER] [--all] [--cranfield ../shared/data/cranfield]

Texts that had no part in the choice: every word of the model's vocabulary, and every other token of it, each as a text;
some thousand of two to six random words; documents and queries. Exits with 1 where the lowest cosine is below 0.995 or
the average below 0.9975.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mlx_embed import EmbeddingModel, int8_layers  # noqa: E402
from mlx_embed.checkpoint.int8 import Int8Layers  # noqa: E402
from scripts.bench_cpu import minilm, processor  # noqa: E402

LEAST, AVERAGE = 0.995, 0.9975


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder; the real all-MiniLM-L6-v2 where there is none")
    parser.add_argument("--cranfield", type=Path, default=ROOT / "../shared/data/cranfield")
    parser.add_argument("--all", action="store_true", help="every layer in int8, columns scaled")
    parser.add_argument("--plain", action="store_true", help="every layer in int8, and no column scaled")
    options = parser.parse_args()
    if options.plain:
        int8_layers.known = lambda checkpoint: Int8Layers()
    if options.all:
        int8_layers.LEAST_COSINE = -1.0
    folder = options.model or minilm()

    def load(dtype: str) -> tuple[Any, float]:
        start = time.perf_counter()
        return EmbeddingModel.from_pretrained(folder, device="cpu", dtype=dtype), time.perf_counter() - start

    exact = load("float32")[0]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        (_, first), (model, second) = load("int8"), load("int8")
    print(f"{processor()}; {folder}")
    print(f"in bfloat16: {', '.join(model.engine.kept) or 'no layer'}, of {len(model.engine.layers)}")
    print(f"first load {first * 1e3:.0f} ms, the next {second * 1e3:.0f}\n")
    print(f"{'texts':24} {'number':>7} {'lowest':>8} {'< ' + str(LEAST):>8} {'average':>8}  lowest of")
    good = True
    for name, texts in sets(exact, options.cranfield).items():
        cosines = (unit(exact, texts) * unit(model, texts)).sum(axis=1)
        few, average = int((cosines < LEAST).sum()), cosines.mean()
        good &= not few and average >= AVERAGE
        worst = ", ".join(repr(texts[i][:24]) for i in cosines.argsort()[:3])
        print(f"{name:24} {len(texts):7} {cosines.min():8.4f} {few:8} {average:8.5f}  {worst}", flush=True)
    return int(not good)


def unit(model: Any, texts: Sequence[str]) -> Any:
    return np.asarray(model.encode(texts, normalize_embeddings=True, long_text="mean_of_chunks"))


def sets(model: Any, cranfield: Path) -> dict[str, list[str]]:
    """Texts by kind, without those that layers are chosen by."""
    vocabulary = sorted(set(model.tokenizer.library.get_vocab()) - set(int8_layers.ODD))
    words = [token for token in vocabulary if token.isascii() and token.isalpha()]
    others = [token for token in vocabulary if token not in set(words) and not token.startswith("[")]
    pick = random.Random(0)
    found = {"words": words, "other tokens": others}
    found["two to six words"] = [" ".join(pick.sample(words, pick.randint(2, 6))) for _ in range(4000)]
    for name, file in (("documents", "docs.jsonl"), ("queries", "queries.jsonl")):
        if (cranfield / file).is_file():
            lines = (cranfield / file).read_text(encoding="utf-8").splitlines()
            found[name] = [text for line in lines if (text := json.loads(line)["text"]).strip()]
    return found


if __name__ == "__main__":
    sys.exit(main())
