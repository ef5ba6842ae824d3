#!/usr/bin/env bash
# Version:   chdb 4.4.0 with chdb-core 26.9.0 (ClickHouse 26.9.2.1 in the process) and numpy 2.4.6.
# Guess:     ORDER BY dotProduct(vector, query) DESC LIMIT 10, which is what an index vector_similarity('hnsw',
#            'dotProduct', ...) serves, gives the ten rows of the largest inner product, with and without that index.
# Behaviour: the index's own distance, 1 less the inner product, is put in place of dotProduct() and then sorted DESC as
#            the query says: the least similar of what the index found stands first, and the column of scores falls as
#            the similarity grows. Each part of the table gives its ten nearest, and of those of all parts the worst ten
#            are kept: once the rows came in four inserts, none of the nearest is left. L2Distance and cosineDistance,
#            for which less is better, are right; so is dotProduct with vector_search_with_rescoring = 1 (the default
#            is 0).
# Why:       the index takes dotProduct since 26.4, and vectors of length 1 suggest it. Over one part the ten rows are
#            the right ones, so that a test of what is found passes; parts come with each insert.
# Seen:
#   cosineDistance, 1 part,  index:      100% of the ten nearest, 40 of 40 queries have their own row first, at 0.178
#   cosineDistance, 4 parts, index:      100% of the ten nearest, 40 of 40 queries have their own row first, at 0.178
#   dotProduct,     1 part,  no index:   100% of the ten nearest, 40 of 40 queries have their own row first, at 0.822
#   dotProduct,     1 part,  index:      100% of the ten nearest, 0 of 40 queries have their own row first, at 0.664
#   dotProduct,     4 parts, index:      0% of the ten nearest, 0 of 40 queries have their own row first, at 0.745
#   dotProduct,     4 parts, rescoring:  100% of the ten nearest, 40 of 40 queries have their own row first, at 0.822
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet chdb==4.4.0 chdb-core==26.9.0 numpy==2.4.6

cat > "$work/parts.py" <<'PY'
import json
import sys
from pathlib import Path

import numpy as np
from chdb.session import Session

random = np.random.default_rng(0)
rows = random.standard_normal((3000, 64))
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
queries = rows[:40] + 0.1 * random.standard_normal((40, 64))
queries /= np.linalg.norm(queries, axis=1, keepdims=True)
nearest = np.argsort(-(queries @ rows.T), axis=1)[:, :10].tolist()
file = Path(sys.argv[1], "rows.jsonl")
file.write_text("".join(json.dumps({"id": row, "vector": vector.tolist()}) + "\n" for row, vector in enumerate(rows)))
session = Session()
session.query("CREATE DATABASE findings")


def measure(metric: str, parts: int, index: bool, settings: str = "") -> tuple[float, int]:
    """The share of the ten nearest that is found, and how many queries have the row that they were made of first."""
    lines = f", INDEX nearest vector TYPE vector_similarity('hnsw', '{metric}', 64)" if index else ""
    session.query("DROP TABLE IF EXISTS findings.rows")
    columns = f"id UInt32, vector Array(Float32){lines}"
    session.query(f"CREATE TABLE findings.rows ({columns}) ENGINE = MergeTree ORDER BY id")
    session.query("SYSTEM STOP MERGES findings.rows")
    for part in range(parts):
        source = f"file('{file}', JSONEachRow, 'id UInt32, vector Array(Float32)')"
        session.query(f"INSERT INTO findings.rows SELECT * FROM {source} WHERE id % {parts} = {part}")
    found = own = 0
    order = "DESC" if metric == "dotProduct" else "ASC"
    for row, query in enumerate(queries.tolist()):
        text = f"SELECT id, {metric}(vector, {query}) AS score FROM findings.rows ORDER BY score {order} LIMIT 10"
        hits = json.loads(str(session.query(f"{text} {settings}", "JSONCompact")))["data"]
        found += len({hit for hit, _ in hits} & {*nearest[row]}) / 400
        own += hits[0][0] == row
    how = "rescoring:" if settings else "index:" if index else "no index:"
    label = f"{metric + ',':15} {f'{parts} part' + 's' * (parts > 1) + ',':8} {how:11}"
    print(f"{label} {found:.0%} of the ten nearest, {own} of 40 queries have their own row first, at {hits[0][1]:.3f}")
    return found, own


right = [
    measure("cosineDistance", 1, True),
    measure("cosineDistance", 4, True),
    measure("dotProduct", 1, False),
]
one, four = measure("dotProduct", 1, True), measure("dotProduct", 4, True)
right.append(measure("dotProduct", 4, True, "SETTINGS vector_search_with_rescoring = 1"))
if any(found < 0.9 or own < 38 for found, own in right):
    sys.exit("The cosine, no index, or rescoring no longer find the nearest.")
if one[0] < 0.9:
    sys.exit("The index no longer finds the nearest of one part.")
if one[1] > 2 or four[0] > 0.1:
    sys.exit("The index's inner products are no longer sorted the wrong way round.")
PY
"$work/venv/bin/python" "$work/parts.py" "$work"
