#!/usr/bin/env bash
# Version:   surrealdb 2.0.0 (Python, embedded "mem://") with numpy 2.4.6.
# Guess:     <|10, PEARSON|> and an index of DIST PEARSON give the ten vectors that correlate most with the query.
# Behaviour: they give the ten that correlate least: the correlation itself, from -1 to 1, is taken for the distance, and
#            the smallest is the nearest. A vector that is in the table comes last of all. vector::distance::knn() returns
#            the correlation. DIST COSINE, next to it in the list of metrics, is a distance (1 minus the similarity).
# Why:       for embeddings whose numbers have a mean of 0 the correlation is the cosine: the two names look like a choice
#            between equals, and ten rows come back either way.
# Seen:
#   COSINE:  correlations of the hits from 1.00 to 0.37 (index), from 1.00 to 0.37 (all rows)
#   PEARSON: correlations of the hits from -0.55 to -0.37 (index), from -0.55 to -0.37 (all rows)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet surrealdb==2.0.0 numpy==2.4.6

cat > "$work/pearson.py" <<'PY'
import sys

import numpy as np
from surrealdb import Surreal

random = np.random.default_rng(0)
vectors = random.standard_normal((500, 32))
vectors -= vectors.mean(axis=1, keepdims=True)
correlations = np.corrcoef(vectors)[7]
database = Surreal("mem://")
database.use("findings", "findings")
rows = [{"id": row, "vector": vector} for row, vector in enumerate(vectors.tolist())]
best = {}
for metric in ("COSINE", "PEARSON"):
    table = metric.lower()
    database.query(f"DEFINE INDEX nearest ON {table} FIELDS vector HNSW DIMENSION 32 DIST {metric} TYPE F32")
    database.query(f"INSERT INTO {table} $rows; INSERT INTO {table}_all $rows", {"rows": rows})
    seen = []
    for name, how in ((table, "500"), (f"{table}_all", metric)):
        text = f"SELECT record::id(id) AS id, vector::distance::knn() AS away FROM {name} WHERE vector <|10, {how}|> $query"
        hits = database.query(f"{text} ORDER BY away", {"query": rows[7]["vector"]})
        seen.append(correlations[[hit["id"] for hit in hits]])
    spans = [f"from {some[0]:.2f} to {some[-1]:.2f}" for some in seen]
    print(f"{metric + ':':8} correlations of the hits {spans[0]} (index), {spans[1]} (all rows)")
    best[metric] = [some[0] for some in seen]
if min(best["COSINE"]) < 0.99:
    sys.exit("The cosine no longer finds the row itself.")
if max(best["PEARSON"]) > 0:
    sys.exit("PEARSON now gives the vectors that correlate most.")
PY
"$work/venv/bin/python" "$work/pearson.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
