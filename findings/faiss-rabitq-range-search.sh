#!/usr/bin/env bash
# Version:   faiss-cpu 1.15.1 with numpy 2.4.6.
# Guess:     range_search(queries, radius) gives the rows that search() would put within the radius.
# Behaviour: "IVF16,RaBitQfs" (IndexIVFRaBitQFastScan) gives other rows, and distances that belong to no row. By L2 all
#            rows are within any radius, at squared distances below zero; by inner product nearly none or nearly all
#            are, by the scale of the data. search() of the same index is right, and so is range_search() of
#            "IVF16,RaBitQ", whose codes hold the same bits in another order.
# Cause:     the class turns sums over its codes into distances with factors of the query, which its search() hands
#            down. It does not override range_search(): that of IndexIVFFastScan hands down none, so that raw sums are
#            compared with the radius.
# Why:       everything above a threshold is what deduplication and clustering of embeddings ask for.
# Seen:
#   IVF16,RaBitQ   L2: search puts 3507 within 1.4, range_search 3507, the least squared distance  0.00
#   IVF16,RaBitQ   IP: search puts 17210 above 0.3, range_search 17210
#   IVF16,RaBitQfs L2: search puts 3455 within 1.4, range_search 250000, the least squared distance -0.96
#   IVF16,RaBitQfs IP: search puts 16782 above 0.3, range_search 183285
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet faiss-cpu==1.15.1 numpy==2.4.6

cat > "$work/range.py" <<'PY'
import sys

import faiss
import numpy as np

random = np.random.default_rng(0)
rows = random.standard_normal((5000, 64)).astype(np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
queries = rows[:50] + 0.05 * random.standard_normal((50, 64)).astype(np.float32)

for kind in ("IVF16,RaBitQ", "IVF16,RaBitQfs"):
    for metric, name, radius in ((faiss.METRIC_L2, "L2", 1.4), (faiss.METRIC_INNER_PRODUCT, "IP", 0.3)):
        index = faiss.index_factory(64, kind, metric)
        index.train(rows)
        index.add(rows)
        index.nprobe = 16
        distances, found = index.search(queries, len(rows))
        within = distances < radius if metric == faiss.METRIC_L2 else distances > radius
        searched = int((within & (found >= 0)).sum())
        limits, ranged, _ = index.range_search(queries, radius)
        count, least = int(limits[-1]), float(ranged.min())
        if metric == faiss.METRIC_L2:
            print(
                f"{kind:14} L2: search puts {searched} within {radius}, range_search {count}, "
                f"the least squared distance {least:5.2f}"
            )
        else:
            print(f"{kind:14} IP: search puts {searched} above {radius}, range_search {count}")
        if kind == "IVF16,RaBitQ":
            if abs(count - searched) > 0.02 * searched:
                sys.exit("range_search of IVF,RaBitQ no longer agrees with its search.")
        elif count < 2 * searched or (metric == faiss.METRIC_L2 and least >= 0):
            sys.exit(f"range_search of IVF,RaBitQfs by {name} now agrees with its search.")
PY
"$work/venv/bin/python" "$work/range.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
