#!/usr/bin/env bash
# Version:   kuzu 0.11.3 with numpy 2.4.6.
# Guess:     a vector index with metric "dotproduct" gives the rows of the largest inner product with the query.
# Behaviour: it gives those of the smallest: the inner product itself is taken for the distance, in building the graph and
#            in searching it, and the column `distance` has it as it is. "cosine", "l2" and "l2sq" are right. With unit
#            vectors, for which the inner product and the cosine rank alike, the ten hits are those that point most away.
# Why:       models for the dot product are indexed by it. Ten rows come back, in rising order of `distance`, and nothing
#            says that they are the opposite of an answer.
# Seen:
#   cosine:     of the ten first 10.0 found, of the ten last  0.0
#   l2:         of the ten first 10.0 found, of the ten last  0.0
#   dotproduct: of the ten first  0.0 found, of the ten last 10.0
#   dotproduct, unit vectors: of the ten first  0.0 found, of the ten last 10.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet kuzu==0.11.3 numpy==2.4.6

cat > "$work/metric.py" <<'PY'
import sys

import kuzu
import numpy as np

SIZE = 32
random = np.random.default_rng(0)
units = random.standard_normal((800, SIZE)).astype(np.float32)
units /= np.linalg.norm(units, axis=1, keepdims=True)
longer = units * random.uniform(0.5, 2, (len(units), 1)).astype(np.float32)
queries = random.standard_normal((20, SIZE)).astype(np.float32)
connection = kuzu.Connection(kuzu.Database(":memory:"))


def measure(table: str, rows: np.ndarray, metric: str, scores: np.ndarray) -> tuple[float, float]:
    """How many of the ten of the highest and of the ten of the lowest scores the index finds, on average."""
    connection.execute(f"CREATE NODE TABLE {table}(id INT64, vector FLOAT[{SIZE}], PRIMARY KEY(id))")
    for number, row in enumerate(rows.tolist()):
        connection.execute(f"CREATE (:{table} {{id: $id, vector: $vector}})", {"id": number, "vector": row})
    connection.execute(f"CALL CREATE_VECTOR_INDEX('{table}', 'nearest', 'vector', metric := '{metric}')")
    first = last = 0
    for query, score in zip(queries.tolist(), scores):
        text = f"CALL QUERY_VECTOR_INDEX('{table}', 'nearest', $query, 10, efs := 500) RETURN node.id ORDER BY distance"
        hits = {row[0] for row in connection.execute(text, {"query": query}).get_all()}
        order = np.argsort(-score).tolist()
        first += len(hits & {*order[:10]}) / len(queries)
        last += len(hits & {*order[-10:]}) / len(queries)
    print(f"{metric + (', unit vectors:' if rows is units else ':'):11} of the ten first {first:4.1f} found, of the ten last {last:4.1f}")
    return first, last


away = np.linalg.norm(queries[:, None] - longer[None], axis=2)
right = [measure("c", longer, "cosine", queries @ units.T), measure("l", longer, "l2", -away)]
turned = [measure("d", longer, "dotproduct", queries @ longer.T), measure("u", units, "dotproduct", queries @ units.T)]
if min(first for first, _ in right) < 9:
    sys.exit("The other metrics no longer find the nearest.")
if min(last for _, last in turned) < 8 or max(first for first, _ in turned) > 1:
    sys.exit("The metric dotproduct no longer finds the least similar rows.")
PY
"$work/venv/bin/python" "$work/metric.py"
