#!/usr/bin/env bash
# Version:   vicinity 0.4.6 with usearch 2.26.6 and numpy 2.4.6.
# Guess:     metric="dot" is the dot product; with metric="inner_product" the distances that come back grow in the order
#            in which the hits stand.
# Behaviour: "dot" is another name for "cosine", over every backend. "inner_product" (usearch only) searches by 1 minus the
#            inner product, and then query() and query_threshold() raise all distances below 0 to 0: each product above
#            1 has the distance 0, and what is left to tell the hits apart is their order.
# Why:       its README names "dot" beside "cosine" as another metric (of Annoy), and the other names of one metric are
#            spelling ("cos", "l2"). Models for the dot product put the weight of a text into its length; they get
#            cosine's answer. Scores that are merged with another list, or cut off, are all equal.
# Seen:
#   of the ten first by dot product: "dot" finds 3.9; of the ten first by cosine: 10.0
#   "inner_product" finds 10.0 of the ten first, with 1 distinct distance where there are 10
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet vicinity==0.4.6 usearch==2.26.6 numpy==2.4.6

cat > "$work/dot.py" <<'PY'
import sys

import numpy as np
from vicinity import Vicinity

random = np.random.default_rng(0)
directions = random.standard_normal((1000, 32)).astype(np.float32)
directions /= np.linalg.norm(directions, axis=1, keepdims=True)
documents = directions * random.uniform(1, 10, (1000, 1)).astype(np.float32)
queries = random.standard_normal((30, 32)).astype(np.float32)
by_dot = np.argsort(-(queries @ documents.T), axis=1)[:, :10].tolist()
by_cosine = np.argsort(-(queries @ directions.T), axis=1)[:, :10].tolist()


def answers(backend: str, metric: str) -> list[list[tuple[int, float]]]:
    options = {"expansion_search": 1000} if backend == "usearch" else {}
    store = Vicinity.from_vectors_and_items(documents, range(1000), backend_type=backend, metric=metric, **options)
    return store.query(queries, k=10)


def shared(hits: list[list[tuple[int, float]]], wanted: list[list[int]]) -> float:
    return float(np.mean([len({row for row, _ in some} & {*best}) for some, best in zip(hits, wanted)]))


dot = {backend: answers(backend, "dot") for backend in ("basic", "usearch")}
found, turned = shared(dot["basic"], by_dot), shared(dot["basic"], by_cosine)
print(f'of the ten first by dot product: "dot" finds {found:.1f}; of the ten first by cosine: {turned:.1f}')
inner = answers("usearch", "inner_product")
distinct = max(len({float(distance) for _, distance in hits}) for hits in inner)
words = "distance" if distinct == 1 else "distances"
print(f'"inner_product" finds {shared(inner, by_dot):.1f} of the ten first, with {distinct} distinct {words} where there are 10')
if turned < 9.9 or shared(dot["usearch"], by_cosine) < 9.5:
    sys.exit('"dot" is no longer the cosine.')
if distinct != 1:
    sys.exit("Distances below 0 are kept now.")
PY
"$work/venv/bin/python" "$work/dot.py"
