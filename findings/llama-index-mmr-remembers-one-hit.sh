#!/usr/bin/env bash
# Version:   llama-index-core 0.14.25 with numpy 2.4.6.
# Guess:     mode="mmr" takes the hit that is near the query and unlike all hits before it.
# Behaviour: a candidate is compared with the one hit before it. Copies of a source are avoided for one place and come
#            back in the next: the ten hits go to and fro between two to five sources, where maximal marginal relevance
#            gives ten. What comes back as similarities is the score against that one hit, and goes up and down.
# Why:       the mode is there for stores that hold one text several times, and its first two hits, which is what one
#            looks at, are right. The docstring speaks of similarity to previous results. A request to change it is open.
# Seen (30 sources, each stored five times, nearly alike):
#   mmr_threshold 0.7: sources 28 20 12 20 12 20 12 20 28 20, by all hits before 28 20  4  5 24 12 15  2  0 11
#   mmr_threshold 0.5: sources 28 14 28 14 28 14 28 14 28 14, by all hits before 28 14 20 17 15 27 11  5  1 22
#   mmr_threshold 0.3: sources 28 14 21 14  6 14  6 14 10 14, by all hits before 28 14  7 19 23 13  1 22 26 17
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet llama-index-core==0.14.25 numpy==2.4.6

cat > "$work/diversity.py" <<'PY'
import sys

import numpy as np
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode

SOURCES, COPIES, SIZE = 30, 5, 64
random = np.random.default_rng(0)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


query = unit(random.standard_normal(SIZE))
apart = random.uniform(0.6, 1.4, (SOURCES, 1))
sources = unit(query + apart * unit(random.standard_normal((SOURCES, SIZE))))
rows = unit(np.repeat(sources, COPIES, axis=0) + 0.1 * unit(random.standard_normal((SOURCES * COPIES, SIZE))))
store = SimpleVectorStore()
store.add([TextNode(id_=str(number), text=str(number), embedding=row.tolist()) for number, row in enumerate(rows)])


def by_all(threshold: float) -> list[int]:
    """Ten rows, each compared with all that were taken before."""
    near, taken = rows @ query, []
    while len(taken) < 10:
        like = (rows @ rows[taken].T).max(axis=1) if taken else np.zeros(len(rows))
        gain = threshold * near - (1 - threshold) * like
        gain[taken] = -np.inf
        taken.append(int(gain.argmax()))
    return taken


def shown(hits: list[int]) -> str:
    return " ".join(f"{hit // COPIES:2}" for hit in hits)


for threshold in (0.7, 0.5, 0.3):
    asked = VectorStoreQuery(query_embedding=query.tolist(), similarity_top_k=10, mode=VectorStoreQueryMode.MMR)
    hits = [int(number) for number in store.query(asked, mmr_threshold=threshold).ids]
    expected = by_all(threshold)
    print(f"mmr_threshold {threshold}: sources {shown(hits)}, by all hits before {shown(expected)}")
    if hits[:2] != expected[:2] or len({hit // COPIES for hit in expected}) < 10:
        sys.exit("The first two hits are others.")
    if len({hit // COPIES for hit in hits}) > 5:
        sys.exit("Hits are compared with all before them now.")
PY
"$work/venv/bin/python" "$work/diversity.py"
