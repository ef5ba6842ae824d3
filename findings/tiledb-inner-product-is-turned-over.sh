#!/usr/bin/env bash
# Version:   tiledb-vector-search 0.16.0 with tiledb 0.36.1 and numpy 2.2.6.
# Guess:     an index of type FLAT with INNER_PRODUCT compares a query with every row and gives the rows of the largest
#            inner product, exactly.
# Behaviour: rows are ordered by 1 divided by the inner product, the least first. As long as all products are positive,
#            that is the order of the products; each negative one comes before all positive ones, the nearest to 0
#            first. A query that repeats a row gets ten rows that are all but square to it, with "distances" just below
#            0, and its own row stands behind every row of a negative product. COSINE and L2 over the same rows are
#            right. No warning.
# Why:       products of vectors with numbers above 0 alone (counts, sparse weights, many images) are positive, and a
#            test with random numbers between 0 and 1 passes. Embeddings of texts have both signs.
# Seen (vectors of length 1, for which the three metrics have one order):
#   L2, numbers of both signs:            100% of the ten nearest, 20 of 20 queries have their own row first
#   COSINE, numbers of both signs:        100% of the ten nearest, 20 of 20 queries have their own row first
#   INNER_PRODUCT, numbers above 0:       100% of the ten nearest, 20 of 20 queries have their own row first
#   INNER_PRODUCT, numbers of both signs: 0% of the ten nearest, 0 of 20 queries have their own row first
#   all rows by INNER_PRODUCT stand in the order of 1 / product: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tiledb-vector-search==0.16.0 tiledb==0.36.1 numpy==2.2.6

cat > "$work/product.py" <<'PY'
import sys

import numpy as np
from tiledb.vector_search import ingest
from tiledb.vector_search._tiledbvspy import DistanceMetric

random = np.random.default_rng(0)
signed = random.standard_normal((1000, 64)).astype(np.float32)
signed /= np.linalg.norm(signed, axis=1, keepdims=True)


def measure(metric: str, rows: np.ndarray, signs: str) -> tuple[float, int, bool]:
    """The share of the ten nearest, the queries that have their own row first, and whether 1 / product is the order."""
    queries = rows[:20] + 0.02 * random.standard_normal((20, 64)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    products = queries @ rows.T
    folder = f"{sys.argv[1]}/{metric}-{signs.replace(' ', '-')}"
    kind = getattr(DistanceMetric, metric)
    index = ingest(index_type="FLAT", index_uri=folder, input_vectors=rows, distance_metric=kind)
    _, hits = index.query(queries, k=10)
    _, all_rows = index.query(queries, k=len(rows))
    best = np.argsort(-products, axis=1)[:, :10]
    found = float(np.mean([np.isin(best[query], hits[query]) for query in range(20)]))
    own = int(np.sum(hits[:, 0] == np.arange(20)))
    turned = np.take_along_axis(products, all_rows.astype(int), axis=1)
    print(f"{f'{metric}, {signs}:':37} {found:.0%} of the ten nearest, {own} of 20 queries have their own row first")
    return found, own, bool(np.all(np.diff(1 / turned, axis=1) > -1e-3 * np.abs(1 / turned[:, 1:])))


right = [
    measure("L2", signed, "numbers of both signs"),
    measure("COSINE", signed, "numbers of both signs"),
    measure("INNER_PRODUCT", np.abs(signed), "numbers above 0"),
]
found, own, turned = measure("INNER_PRODUCT", signed, "numbers of both signs")
print(f"all rows by INNER_PRODUCT stand in the order of 1 / product: {turned}")
if any(share < 0.99 or first < 20 for share, first, _ in right):
    sys.exit("The other metrics or positive products are no longer right.")
if found > 0.1 or own > 0 or not turned:
    sys.exit("Rows are no longer ordered by 1 divided by the inner product.")
PY
"$work/venv/bin/python" "$work/product.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
