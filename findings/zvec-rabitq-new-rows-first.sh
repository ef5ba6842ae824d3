#!/usr/bin/env bash
# Version:   zvec 0.8.0 with numpy 2.4.6.
# Guess:     rows that are added after optimize() are merged with the others by their score.
# Behaviour: by the inner product, zvec's default metric, an index HNSW_RABITQ or IVF_RABITQ scores a row by its inner
#            product until optimize() has encoded it, and by the inner product less 1 from then on. Rows that are added
#            later are searched as they are, and the two lists are merged by score: any new row stands before every old
#            one. A query that repeats an old document finds ten strangers, until optimize() runs again. COSINE, L2 and
#            the other quantizations give one kind of score throughout.
# Why:       for vectors of length 1 the cosine is an inner product, so that the default looks right, and so it is on
#            the day of the load. Each day's additions then hide all that was there.
# Seen:
#   HNSW_RABITQ inserted:  finds itself 40 of 40, new rows among the ten 0%, score of the first 0.77
#   HNSW_RABITQ optimized: finds itself 40 of 40, new rows among the ten 0%, score of the first -0.23
#   HNSW_RABITQ 200 added: finds itself 0 of 40, new rows among the ten 100%, score of the first 0.26
#   IVF_RABITQ  inserted:  finds itself 40 of 40, new rows among the ten 0%, score of the first 0.77
#   IVF_RABITQ  optimized: finds itself 39 of 40, new rows among the ten 0%, score of the first -0.23
#   IVF_RABITQ  200 added: finds itself 0 of 40, new rows among the ten 100%, score of the first 0.26
#   HNSW        inserted:  finds itself 40 of 40, new rows among the ten 0%, score of the first 0.77
#   HNSW        optimized: finds itself 40 of 40, new rows among the ten 0%, score of the first 0.77
#   HNSW        200 added: finds itself 40 of 40, new rows among the ten 9%, score of the first 0.77
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet zvec==0.8.0 numpy==2.4.6

cat > "$work/added.py" <<'PY'
import sys

import numpy as np
import zvec

random = np.random.default_rng(0)
rows = random.standard_normal((2200, 64)).astype(np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
queries = rows[:40] + 0.1 * random.standard_normal((40, 64)).astype(np.float32)
queries /= np.linalg.norm(queries, axis=1, keepdims=True)


def insert(collection: zvec.Collection, ids: range) -> None:
    for start in range(ids.start, ids.stop, 500):
        some = range(start, min(start + 500, ids.stop))
        collection.insert([zvec.Doc(id=str(row), vectors={"vector": rows[row].tolist()}) for row in some])


def look(collection: zvec.Collection, label: str) -> tuple[int, float, float]:
    found = [collection.query(zvec.Query("vector", vector=query.tolist()), topk=10) for query in queries]
    itself = sum(hits[0].id == str(row) for row, hits in enumerate(found))
    new = float(np.mean([[int(hit.id) >= 2000 for hit in hits] for hits in found]))
    print(
        f"{label} finds itself {itself} of 40, new rows among the ten {new:.0%}, "
        f"score of the first {found[0][0].score:.2f}"
    )
    return itself, new, found[0][0].score


kinds = {
    "HNSW_RABITQ": zvec.HnswRabitqIndexParam(metric_type=zvec.MetricType.IP),
    "IVF_RABITQ": zvec.IvfRabitqIndexParam(metric_type=zvec.MetricType.IP),
    "HNSW": zvec.HnswIndexParam(metric_type=zvec.MetricType.IP),
}
for name, kind in kinds.items():
    field = zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, 64, kind)
    collection = zvec.create_and_open(f"{sys.argv[1]}/{name}", zvec.CollectionSchema("rows", vectors=[field]))
    insert(collection, range(2000))
    inserted = look(collection, f"{name:11} inserted: ")
    collection.optimize()
    optimized = look(collection, f"{name:11} optimized:")
    insert(collection, range(2000, 2200))
    added = look(collection, f"{name:11} 200 added:")
    if inserted[0] < 30 or optimized[0] < 30:
        sys.exit(f"{name} no longer finds its rows before others are added.")
    if name == "HNSW":
        if added[0] < 38 or abs(inserted[2] - optimized[2]) > 0.1:
            sys.exit("The index without RaBitQ no longer merges new rows by their score.")
    elif added[0] > 2 or added[1] < 0.95 or abs(inserted[2] - optimized[2] - 1) > 0.1:
        sys.exit(f"{name} no longer puts new rows before all others.")
PY
"$work/venv/bin/python" "$work/added.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
