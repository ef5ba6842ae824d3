#!/usr/bin/env bash
# Version:   lancedb 0.40.0 with pyarrow 26.0.1 and numpy 2.4.6.
# Guess:     an IvfFlat index of texts of a vector a token, all of whose cells are searched, gives what a search without
#            an index gives: it holds the vectors as they are. limit=100 begins with the ten of limit=10.
# Behaviour: each of the query's tokens finds as many tokens as limit says, and of a text that it has not found by them
#            it takes the lowest similarity that it has seen. So a small limit loses texts, the first ten depend on
#            limit, and the distances are too small. refine_factor=1 corrects the distances alone; a larger one counts
#            as that many times limit.
# Why:       late interaction is chosen for its precision, and limit is the number of hits that one shows. Nothing of
#            the index is approximate. The documentation says that it "integrates with XTR", whose estimate this is.
# Seen (of the ten nearest, and by how much the distances, which are around 7, are too small):
#   no index, limit 10:            100%, 0.00
#   index, limit 10:                68%, 0.49
#   index, limit 10, refined by 1:  68%, 0.00
#   index, limit 100:               92%, 0.03
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet lancedb==0.40.0 pyarrow==26.0.1 numpy==2.4.6

cat > "$work/limit.py" <<'PY'
import sys

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import IvfFlat

TEXTS, SIZE, CELLS, QUERY = 3000, 32, 4, 16
random = np.random.default_rng(0)


def units(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


topics = 3 * units(random.standard_normal((40, SIZE)))


def text(tokens: int) -> np.ndarray:
    """A vector a token, around one of the topics."""
    return units(topics[random.integers(len(topics))] + random.standard_normal((tokens, SIZE)))


texts = [text(random.integers(10, 60)) for _ in range(TEXTS)]
queries = [text(QUERY) for _ in range(20)]
true = np.array([[QUERY - (query @ one.T).max(1).sum() for one in texts] for query in queries])
nearest = np.argsort(true, axis=1)[:, :10].tolist()
kind = pa.list_(pa.list_(pa.float32(), SIZE))
rows = pa.table({"id": np.arange(TEXTS), "vector": pa.array([one.tolist() for one in texts], type=kind)})
table = lancedb.connect(sys.argv[1]).create_table("texts", rows)


def measure(label: str, limit: int, refine: int | None = None) -> tuple[float, float]:
    """The share of the ten nearest in the first ten, and how far below their true distances those of the ten are."""
    shared, below = 0, []
    for query, wanted, distances in zip(queries, nearest, true):
        search = table.search(query, vector_column_name="vector").distance_type("cosine").limit(limit).nprobes(CELLS)
        hits = (search.refine_factor(refine) if refine else search).to_arrow()[:10]
        found = hits["id"].to_pylist()
        shared += len({*found} & {*wanted})
        below.append(np.mean(distances[found] - hits["_distance"].to_numpy()))
    share = shared / (10 * len(queries))
    print(f"{label + ':':30} {share:4.0%}, {np.mean(below):.2f}")
    return share, float(np.mean(below))


exact = measure("no index, limit 10", 10)
table.create_index("vector", config=IvfFlat(distance_type="cosine", num_partitions=CELLS))
short = measure("index, limit 10", 10)
refined = measure("index, limit 10, refined by 1", 10, 1)
longer = measure("index, limit 100", 100)
if exact[0] < 1 or abs(exact[1]) > 1e-3:
    sys.exit("A search without an index is no longer exact.")
if short[0] > 0.9 or short[1] < 0.02 or refined[0] > 0.9:
    sys.exit("An index over all cells finds what a search without one does.")
if longer[0] < short[0] + 0.05:
    sys.exit("The first ten no longer depend on limit.")
PY
"$work/venv/bin/python" "$work/limit.py" "$work/database" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
