#!/usr/bin/env bash
# Version:   omendb 0.0.37 with numpy 2.4.6.
# Guess:     omendb.open(path, metric="cosine") searches by the cosine, as its help says, or refuses a store of another metric.
# Behaviour: it takes the three names, refuses any other, and searches by the squared Euclidean distance in each case. open()
#            opens only what create() has made, and create() knows no metric: {"dense": {"dim": 64, "metric": "cosine"}} is
#            taken, and so is any other word, and changes nothing. Only vectors of one length are in the right order.
# Why:       embeddings of unlike lengths are ranked by their lengths as well, and max_distance is held against numbers of
#            another scale. What comes back is called distance and rises, as it would by the cosine. Nothing was found about
#            this.
# Seen (of the ten nearest by numpy):
#   open(metric="l2"):       l2 1.00, cosine 0.33, dot 0.00; first distance 443.3
#   open(metric="cosine"):   l2 1.00, cosine 0.33, dot 0.00; first distance 443.3
#   open(metric="dot"):      l2 1.00, cosine 0.33, dot 0.00; first distance 443.3
#   create(metric="cosine"): l2 1.00, cosine 0.33, dot 0.00; first distance 443.3
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet omendb==0.0.37 numpy==2.4.6

cat > "$work/metric.py" <<'PY'
import sys

import numpy as np
import omendb

random = np.random.default_rng(0)
topics = random.standard_normal((16, 64))
rows, queries = ((random.standard_normal((count, 16)) @ topics).astype(np.float32) for count in (2000, 50))
rows *= random.uniform(0.3, 3, (2000, 1)).astype(np.float32)
distances = {
    "l2": ((queries[:, None] - rows) ** 2).sum(axis=2),
    "cosine": -(queries @ rows.T) / np.linalg.norm(rows, axis=1),
    "dot": -(queries @ rows.T),
}
nearest = {metric: some.argsort(axis=1)[:, :10].tolist() for metric, some in distances.items()}


def look(label: str, database) -> dict[str, float]:
    """The share of the ten nearest by each metric among the hits."""
    database.set([{"id": str(at), "vector": row.tolist()} for at, row in enumerate(rows)])
    found = [database.search(query, 10) for query in queries]
    shares = {
        metric: sum(len({int(hit["id"]) for hit in some} & {*one}) for some, one in zip(found, best)) / 500
        for metric, best in nearest.items()
    }
    print(
        f"{label + ':':24} {', '.join(f'{metric} {some:.2f}' for metric, some in shares.items())};"
        f" first distance {found[0][0]['distance']:.1f}"
    )
    return shares


results = []
for metric in nearest:
    path = f"{sys.argv[1]}/{metric}"
    omendb.create(path, {"dense": {"dim": 64}}).close()
    results.append(look(f'open(metric="{metric}")', omendb.open(path, metric=metric)))
schema = {"dense": {"dim": 64, "metric": "cosine"}}
results.append(look('create(metric="cosine")', omendb.create(":memory:", schema)))
try:
    omendb.open(path, metric="other")
except ValueError:
    pass
else:
    sys.exit("open() takes any metric.")
if any(shares["l2"] < 0.95 or shares["cosine"] > 0.6 or shares["dot"] > 0.3 for shares in results):
    sys.exit("The metric counts now.")
PY
"$work/venv/bin/python" "$work/metric.py" "$work"
