#!/usr/bin/env bash
# Version:   lancedb 0.40.0 with pyarrow 26.0.1 and numpy 2.4.6.
# Guess:     optimize() leaves a vector index as good as it is: it merges files and takes in rows that came later.
# Behaviour: with the metric "dot" an index of product-quantized codes (IvfPq, HnswPq) finds less than half of what it
#            found before, though no row came or went; with refine_factor=10, which found every one, two of three. An
#            index that is built anew is right until the next optimize(). "l2" and "cosine" still find all with
#            refine_factor, and IvfSq by "dot" without it.
# Why:       optimize() is what the documents advise after rows were added. As many rows come back as before, with
#            scores of the usual size. An index is measured when it is built, before its first optimize().
# Seen (of the ten nearest, by the codes alone and with refine_factor=10; the codes are trained from a random start, so
#       that the first of each pair is a few points higher or lower each time):
#   l2, IvfPq:      built 82% and 100%, optimized 79% and 100%, built anew 85% and 100%
#   l2, HnswPq:     built 78% and 100%, optimized 65% and 100%, built anew 79% and 100%
#   cosine, IvfPq:  built 84% and 100%, optimized 81% and 100%, built anew 83% and 100%
#   cosine, HnswPq: built 78% and 100%, optimized 58% and 100%, built anew 78% and 100%
#   dot, IvfPq:     built 85% and 100%, optimized 36% and 67%, built anew 87% and 100%
#   dot, HnswPq:    built 82% and 100%, optimized 31% and 69%, built anew 83% and 100%
#   dot, IvfSq:     built 99% and 100%, optimized 99% and 100%, built anew 99% and 100%
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet lancedb==0.40.0 pyarrow==26.0.1 numpy==2.4.6

cat > "$work/optimize.py" <<'PY'
import sys

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import HnswPq, IvfPq, IvfSq

ROWS, SIZE, CELLS = 4000, 64, 4
STEPS = ("built", "optimized", "built anew")
random = np.random.default_rng(0)
rows, queries = (random.standard_normal((count, SIZE)).astype(np.float32) for count in (ROWS, 50))
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
queries /= np.linalg.norm(queries, axis=1, keepdims=True)
nearest = np.argsort(-(queries @ rows.T), axis=1)[:, :10].tolist()
column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), SIZE)
database = lancedb.connect(sys.argv[1])


def found(table: "lancedb.table.Table", metric: str, refine: int | None) -> float:
    shared = 0
    for query, wanted in zip(queries, nearest):
        search = table.search(query, vector_column_name="vector").distance_type(metric).limit(10).nprobes(CELLS)
        search = search.refine_factor(refine) if refine else search
        shared += len({*search.to_arrow()["id"].to_pylist()} & {*wanted})
    return shared / (10 * len(queries))


def measure(metric: str, kind: type) -> list[tuple[float, float]]:
    """What the index finds, by its codes and with refine_factor, after each of STEPS."""
    name = f"{metric}-{kind.__name__}"
    table = database.create_table(name, pa.table({"id": np.arange(ROWS), "vector": column}))
    codes = {} if kind is IvfSq else {"num_sub_vectors": SIZE // 2}
    shares = []
    for step in STEPS:
        if step == "optimized":
            table.optimize()
        else:
            table.create_index("vector", config=kind(distance_type=metric, num_partitions=CELLS, **codes))
        shares.append((found(table, metric, None), found(table, metric, 10)))
    said = ", ".join(f"{step} {plain:.0%} and {refined:.0%}" for step, (plain, refined) in zip(STEPS, shares))
    print(f"{metric + ', ' + kind.__name__ + ':':15} {said}")
    return shares


right = [measure(metric, kind) for metric in ("l2", "cosine") for kind in (IvfPq, HnswPq)]
spoilt = [measure("dot", kind) for kind in (IvfPq, HnswPq)]
right.append(measure("dot", IvfSq))
if min(refined for shares in right for _, refined in shares) < 0.97:
    sys.exit("The other indexes no longer find all.")
if min(spoilt[0][0] + spoilt[0][2] + spoilt[1][0] + spoilt[1][2]) < 0.7:
    sys.exit("An index by dot that was just built no longer finds most.")
if max(plain for _, (plain, _), _ in spoilt) > 0.5 or max(refined for _, (_, refined), _ in spoilt) > 0.85:
    sys.exit("optimize() no longer spoils an index by dot.")
PY
"$work/venv/bin/python" "$work/optimize.py" "$work/database" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
