#!/usr/bin/env bash
# Version:   pynear 2.6.0 with numpy 2.4.6.
# Guess:     searchKNN gives the nearest row first, as its README says beside the call, and as its IVF and MIH indexes do.
# Behaviour: the VP trees and the HNSW indexes, of floats and of bits, give the same rows the other way round: the nearest
#            is the last one. IVFFlatL2Index, IVFFlatCosineIndex and MIHBinaryIndex put it first.
# Why:       hits[0] is the worst of k, so that a classifier, a deduplication or a list that is cut to its first five works
#            on the wrong rows; and a program turns round when one index takes another's place. The README's quick start,
#            with VPTreeL2Index, calls the result sorted nearest-first. Only a comment inside the adapter for scikit-learn,
#            which sorts them, has it right. Nothing was found about this.
# Seen:
#   VPTreeL2Index:      the nearest row is last of 10; its distance 19.18, of the first hit 24.86
#   VPTreeCosineIndex:  the nearest row is last of 10; its distance 0.24, of the first hit 0.39
#   HNSWL2Index:        the nearest row is last of 10; its distance 19.18, of the first hit 24.86
#   HNSWCosineIndex:    the nearest row is last of 10; its distance 0.24, of the first hit 0.39
#   VPTreeBinaryIndex:  the nearest row is last of 10; its distance 11, of the first hit 18
#   HNSWBinaryIndex:    the nearest row is last of 10; its distance 11, of the first hit 18
#   IVFFlatL2Index:     the nearest row is first of 10; its distance 367.71, of the first hit 367.71
#   IVFFlatCosineIndex: the nearest row is first of 10; its distance 0.24, of the first hit 0.24
#   MIHBinaryIndex:     the nearest row is first of 10; its distance 11, of the first hit 11
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pynear==2.6.0 numpy==2.4.6

cat > "$work/order.py" <<'PY'
import sys

import numpy as np
import pynear

random = np.random.default_rng(0)
topics = random.standard_normal((16, 64))
rows, queries = ((random.standard_normal((count, 16)) @ topics).astype(np.float32) for count in (2000, 50))
bits, asked = (np.packbits(side > 0, axis=1) for side in (rows, queries))
exact = {
    "L2": ((queries[:, None] - rows) ** 2).sum(axis=2),
    "Cosine": -(queries @ rows.T) / np.linalg.norm(rows, axis=1),
    "Binary": np.unpackbits(asked[:, None] ^ bits, axis=2).sum(axis=2, dtype=int),
}
cells = {"n_clusters": 20, "n_probe": 20}
indexes = {
    "VPTreeL2Index": {},
    "VPTreeCosineIndex": {},
    "HNSWL2Index": {"ef_search": 300},
    "HNSWCosineIndex": {"ef_search": 300},
    "VPTreeBinaryIndex": {},
    "HNSWBinaryIndex": {"ef_search": 300},
    "IVFFlatL2Index": cells,
    "IVFFlatCosineIndex": cells,
    "MIHBinaryIndex": {},
}
for name, options in indexes.items():
    index = getattr(pynear, name)(**options)
    metric = next(one for one in exact if one in name)
    index.set(bits if metric == "Binary" else rows)
    hits, distances = index.searchKNN(asked if metric == "Binary" else queries, 10)
    turned = not name.startswith(("IVF", "MIH"))
    at = -1 if turned else 0
    best = exact[metric].min(axis=1)
    # Where several rows are equally near, any of them is right.
    right = sum(exact[metric][query, some[at]] == best[query] for query, some in enumerate(hits))
    sorted_so = all(sorted(some, reverse=turned) == list(some) for some in distances)
    if right < 45 or not sorted_so:
        sys.exit(f"{name}: the nearest row has another place.")
    print(
        f"{name + ':':19} the nearest row is {'last' if turned else 'first'} of {len(hits[0])}; its distance"
        f" {round(distances[0][at], 2)}, of the first hit {round(distances[0][0], 2)}"
    )
PY
"$work/venv/bin/python" "$work/order.py"
