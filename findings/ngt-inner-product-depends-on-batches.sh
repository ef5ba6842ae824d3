#!/usr/bin/env bash
# Version:   ngt 2.8.0.post1 (ngtpy) with numpy 2.4.6.
# Guess:     an index of distance_type="Inner Product" finds the same rows however they came in, and linear_search is exact.
# Behaviour: NGT turns the inner product into a distance by one more number per vector, made from the greatest length of
#            all. batch_insert() takes the greatest length so far, and older vectors keep the number of theirs: they look
#            nearer than they are. insert() without a batch before it writes 0, and the answers are those of L2.
#            search() and linear_search() are wrong alike, a saved index too; no error, no warning.
# Why:       embeddings of the inner product (msmarco's, DPR, recommenders) have different lengths, and an index that
#            grows by batches is the ordinary case. Cosine and L2 are not touched.
# Seen:
#   of the ten greatest inner products, all in one batch:             search 10.0, linear_search 10.0
#   of the ten greatest inner products, ten batches, shortest first:  search 6.2, linear_search 6.2
#   of the ten greatest inner products, insert() one by one:          search 6.5, linear_search 6.5
#   of the ten nearest by L2,           insert() one by one:          search 10.0, linear_search 10.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ngt==2.8.0.post1 numpy==2.4.6

cat > "$work/batches.py" <<'PY'
import sys

import ngtpy
import numpy as np

random = np.random.default_rng(0)
vectors = random.standard_normal((1000, 16)).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
vectors *= np.linspace(0.3, 2, 1000, dtype=np.float32)[:, None]
queries = random.standard_normal((30, 16)).astype(np.float32)
results = open(sys.argv[2], "w")


def found(name: str, rows: np.ndarray, batch: int, by_distance: bool = False) -> tuple[float, float]:
    """How many of the ten greatest inner products, or smallest distances, search and linear_search find."""
    folder = f"{sys.argv[1]}/{name}{by_distance}"
    ngtpy.create(folder, 16, distance_type="Inner Product")
    index = ngtpy.Index(folder)
    if batch == 1:
        for row in rows:
            index.insert(row)
        index.build_index()
    else:
        for start in range(0, len(rows), batch):
            index.batch_insert(rows[start : start + batch])
    shared = []
    for query in queries:
        away = ((rows - query) ** 2).sum(axis=1) if by_distance else -(rows @ query)
        best = {*np.argsort(away)[:10].tolist()}
        hits = (index.search(query, 10, epsilon=1.0), index.linear_search(query, 10))
        shared.append([len(best & {row for row, _ in hit}) for hit in hits])
    index.close()
    near, exact = np.mean(shared, axis=0).tolist()
    what = "ten nearest by L2,          " if by_distance else "ten greatest inner products,"
    print(f"of the {what} {name + ':':29} search {near:.1f}, linear_search {exact:.1f}", file=results)
    return near, exact


whole = found("all in one batch", vectors, 1000)
grown = found("ten batches, shortest first", vectors, 100)
single = found("insert() one by one", vectors, 1)
nearest = found("insert() one by one", vectors, 1, by_distance=True)
results.close()
if min(whole) < 9.9:
    sys.exit("One batch no longer finds them.")
if max(grown) > 9 or max(single) > 9:
    sys.exit("Vectors that come in one after another are ranked right now.")
if min(nearest) < 9.9:
    sys.exit("insert() no longer makes it L2.")
PY
status=0
"$work/venv/bin/python" "$work/batches.py" "$work" "$work/results" >"$work/log" 2>"$work/said" || status=$?
cat "$work/results"
[ "$status" = 0 ] || { tail -n 5 "$work/said" >&2; exit 1; }
