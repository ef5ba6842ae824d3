#!/usr/bin/env bash
# Version:   faiss-cpu 1.15.1 with numpy 2.4.6.
# Guess:     index_factory(d, description, METRIC_INNER_PRODUCT) gives an index of that metric or raises, as it does for
#            LSH and the multi-index.
# Behaviour: for a graph over product-quantized codes ("HNSW32,PQ16", "NSG16,PQ16", also behind a transform, an IDMap or
#            a refinement) the metric is dropped: an L2 index comes back. It ranks by distance, and what search() calls
#            scores grow as documents get worse. The same graphs over SQ8 or plain vectors, and PQ alone, keep the metric.
# Why:       with vectors of different lengths the hits are others; with unit vectors they are right and a threshold or a
#            fusion by score turns them upside down. The description is what is varied to save memory: one word changes
#            the meaning of every score.
# Seen:
#   HNSW32           asked for the inner product, has it; scores of the ten first fall, 9.1 of them are among the true ten
#   HNSW32,SQ8       asked for the inner product, has it; scores of the ten first fall, 8.8 of them are among the true ten
#   HNSW32,PQ32x4    asked for the inner product, has L2; scores of the ten first rise, 0.0 of them are among the true ten
#   PQ32x4           asked for the inner product, has it; scores of the ten first fall, 5.8 of them are among the true ten
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet faiss-cpu==1.15.1 numpy==2.4.6

cat > "$work/metric.py" <<'PY'
import sys

import faiss
import numpy as np

random = np.random.default_rng(0)
documents = random.standard_normal((2000, 64)).astype(np.float32)
documents *= random.uniform(0.3, 3, (2000, 1)).astype(np.float32)
queries = random.standard_normal((20, 64)).astype(np.float32)
best = np.argsort(-(queries @ documents.T), axis=1)[:, :10].tolist()
seen = {}
for description in ("HNSW32", "HNSW32,SQ8", "HNSW32,PQ32x4", "PQ32x4"):
    index = faiss.index_factory(64, description, faiss.METRIC_INNER_PRODUCT)
    index.train(documents)
    index.add(documents)
    scores, found = index.search(queries, 10)
    kept = index.metric_type == faiss.METRIC_INNER_PRODUCT
    falls = bool((np.diff(scores, axis=1) <= 0).all())
    right = float(np.mean([len({*row} & {*truth}) for row, truth in zip(found.tolist(), best)]))
    seen[description] = kept, falls, right
    print(
        f"{description:16} asked for the inner product, has {'it' if kept else 'L2'}; scores of the ten first "
        f"{'fall' if falls else 'rise'}, {right:.1f} of them are among the true ten"
    )
for description, (kept, falls, right) in seen.items():
    if description == "HNSW32,PQ32x4":
        if kept or falls or right > 2:
            sys.exit("The metric is no longer dropped.")
    elif not kept or not falls or right < 4:
        sys.exit(f"{description} no longer keeps the metric.")
PY
"$work/venv/bin/python" "$work/metric.py"
