#!/usr/bin/env bash
# Version:   gigavector 0.8.24 with numpy 2.4.6.
# Guess:     for vectors of length 1 the three metrics EUCLIDEAN, COSINE and DOT_PRODUCT rank alike, so that an index finds
#            the same rows by each.
# Behaviour: with IVFFLAT, IVFSQ8 and IVFTURBOQUANT, searched by DOT_PRODUCT, none of the nearest is found. The distance is
#            the product with its sign turned, as with FLAT and HNSW, but rows of a distance below 0, which is to say of a
#            product above 0, are left out: the first hit is the row whose product is just below 0. IVFPQ gives squared
#            Euclidean distances instead of products.
# Why:       the same call is right with one index and gives strangers with the other, so that a store that outgrows FLAT
#            loses everything it should find, while ten hits come back. Nothing was found about this.
# Seen (of the ten nearest, and the first hit's distance, by each metric):
#   FLAT:          EUCLIDEAN 1.00, 0.696; COSINE 1.00, 0.242; DOT_PRODUCT 1.00, -0.758
#   HNSW:          EUCLIDEAN 1.00, 0.484; COSINE 1.00, 0.242; DOT_PRODUCT 1.00, -0.758
#   IVFFLAT:       EUCLIDEAN 1.00, 0.696; COSINE 1.00, 0.242; DOT_PRODUCT 0.00, 0.000
#   IVFSQ8:        EUCLIDEAN 1.00, 0.696; COSINE 1.00, 0.242; DOT_PRODUCT 0.00, 0.000
#   IVFTURBOQUANT: EUCLIDEAN 1.00, 0.696; COSINE 1.00, 0.242; DOT_PRODUCT 0.00, 0.001
#   IVFPQ:         EUCLIDEAN 1.00, 0.484; COSINE 0.88, 0.242; DOT_PRODUCT 1.00, 0.484
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet gigavector==0.8.24 numpy==2.4.6

cat > "$work/dot.py" <<'PY'
import sys

import gigavector
import numpy as np

random = np.random.default_rng(0)
topics = random.standard_normal((16, 64))
sides = [random.standard_normal((count, 16)) @ topics for count in (2000, 50)]
rows, queries = ((side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32) for side in sides)
nearest = (-(queries @ rows.T)).argsort(axis=1)[:, :10].tolist()
cells = {"nlist": 16, "nprobe": 16}
options = {
    "FLAT": {},
    "HNSW": {},
    "IVFFLAT": {"ivfflat_config": gigavector.IVFFlatConfig(**cells)},
    "IVFSQ8": {"ivfsq8_config": gigavector.IVFSQ8Config(**cells)},
    "IVFTURBOQUANT": {"ivfturboquant_config": gigavector.IVFTurboQuantConfig(**cells)},
    "IVFPQ": {"ivfpq_config": gigavector.IVFPQConfig(**cells)},
}
for name, option in options.items():
    database = gigavector.Database.open(None, 64, index=gigavector.IndexType[name], **option)
    if option:
        getattr(database, f"train_{name.lower()}")(rows.tolist())
    for row in rows:
        database.add_vector(row.tolist())
    shares, words = [], []
    for metric in ("EUCLIDEAN", "COSINE", "DOT_PRODUCT"):
        found = [database.search(query.tolist(), 10, gigavector.DistanceType[metric]) for query in queries]
        shares.append(sum(len({hit.id for hit in some} & {*best}) for some, best in zip(found, nearest)) / 500)
        words.append(f"{metric} {shares[-1]:.2f}, {found[0][0].distance:.3f}")
    print(f"{name + ':':14} {'; '.join(words)}")
    database.close()
    if min(shares[:2]) < 0.8:
        sys.exit("The other metrics find less, too.")
    if name == "IVFFLAT" and any(rows[hit.id] @ query > 0 for query, some in zip(queries, found) for hit in some):
        sys.exit("Products above 0 are found now.")
    turned = name in ("IVFFLAT", "IVFSQ8", "IVFTURBOQUANT")
    if turned != (shares[2] < 0.2):
        sys.exit(f"{name} ranks by the inner product in another way.")
PY
"$work/venv/bin/python" "$work/dot.py"
