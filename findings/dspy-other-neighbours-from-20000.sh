#!/usr/bin/env bash
# Version:   dspy 3.4.1 with faiss-cpu 1.15.1 and numpy 2.4.6.
# Guess:     from 20,000 texts on dspy.Embeddings finds a little less than before, since FAISS brings fifty candidates for
#            each five hits; with normalize=False these are candidates for the inner product, by which hits are ranked.
# Behaviour: the candidates are always the nearest by Euclidean distance, which a long vector is far from. With
#            normalize=False, and vectors of other lengths than 1, the text that makes 20,000 takes all right hits away.
#            The five that come back are ranked by their inner products, right among themselves.
# Why:       models for the inner product put a text's weight into its length, and the switch is there for them. Corpora
#            for trying things out are smaller, and exact. brute_force_threshold is described as a matter of speed.
#            Nothing was found about this.
# Seen (lengths between 1 and 1.5, of the five hits by the largest inner product):
#   19999 texts, normalize=True:  100% found
#   19999 texts, normalize=False: 100% found, mean length of hits 1.48
#   20000 texts, normalize=True:  100% found
#   20000 texts, normalize=False: 0% found, mean length of hits 1.29
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LITELLM_LOCAL_MODEL_COST_MAP=True DSPY_CACHEDIR=$work/cache

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet dspy==3.4.1 faiss-cpu==1.15.1 numpy==2.4.6

cat > "$work/candidates.py" <<'PY'
import sys

import dspy
import numpy as np

random = np.random.default_rng(0)
topics = random.standard_normal((200, 64))


def directions(count: int) -> np.ndarray:
    near = topics[random.integers(0, 200, count)] + 0.35 * random.standard_normal((count, 64))
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


rows, queries = directions(20000), directions(50)
lengths = random.uniform(1, 1.5, 20000).astype(np.float32)
rows *= lengths[:, None]
vectors = {f"text {at}": row for at, row in enumerate(rows)} | {f"query {at}": row for at, row in enumerate(queries)}


def embed(texts: list[str]) -> np.ndarray:
    return np.stack([vectors[text] for text in texts])


for count in (19999, 20000):
    for normalize in (True, False):
        retriever = dspy.Embeddings([f"text {at}" for at in range(count)], embed, k=5, normalize=normalize)
        hits = [retriever(f"query {at}").indices for at in range(50)]
        products = queries @ rows[:count].T / (lengths[:count] if normalize else 1)
        nearest = (-products).argsort(axis=1)[:, :5].tolist()
        found = sum(len({*some} & {*best}) for some, best in zip(hits, nearest)) / 250
        mean = "" if normalize else f", mean length of hits {lengths[np.array(hits)].mean():.2f}"
        print(f"{count} texts, normalize={str(normalize) + ':':6} {found:.0%} found{mean}")
        if (count == 19999 or normalize) and found < 0.9:
            sys.exit("Others find less, too.")
        if count == 20000 and not normalize and found > 0.5:
            sys.exit("Candidates are near by the inner product now.")
PY
"$work/venv/bin/python" "$work/candidates.py" | sed '/^Training/d'
