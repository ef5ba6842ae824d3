#!/usr/bin/env bash
# Version:   qdrant-client 1.20.0 (local mode, ":memory:") with numpy 2.4.6.
# Guess:     Fusion.DBSF puts what several searches find near the query before what they find far from it, whatever the
#            distance of the collection.
# Behaviour: with EUCLID and MANHATTAN, for which less is nearer, the distances are normalized and added up as if more
#            were better. Of a hundred rows that a search has found the farthest come first, and the row that the query
#            repeats is among the last. One search that is fused with itself comes back in the opposite order. COSINE
#            and DOT are right, and so is Fusion.RRF, which goes by the places.
# Why:       hybrid searches are fused, and the sparse half is right, so that words still find their texts. The order of
#            each search by itself is right as well.
# Seen (500 rows, 30 queries that are rows with some noise; two searches for 100 rows each, dense and sparse):
#   Cosine, DBSF:     30 of 30 rows are among the ten, the same search twice is turned round: False
#   Dot, DBSF:        30 of 30 rows are among the ten, the same search twice is turned round: False
#   Euclid, RRF:      30 of 30 rows are among the ten, the same search twice is turned round: False
#   Euclid, DBSF:     0 of 30 rows are among the ten, the same search twice is turned round: True
#   Manhattan, DBSF:  0 of 30 rows are among the ten, the same search twice is turned round: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet qdrant-client==1.20.0 numpy==2.4.6

cat > "$work/fusion.py" <<'PY'
import sys

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.models import (
    Distance,
    Fusion,
    FusionQuery,
    PointStruct,
    Prefetch,
    SparseVector,
    SparseVectorParams,
    VectorParams,
)

random = np.random.default_rng(0)
rows = random.standard_normal((500, 32))
queries = rows[:30] + 0.3 * random.standard_normal((30, 32))
client = QdrantClient(":memory:")
words = Prefetch(query=SparseVector(indices=[49], values=[1.0]), using="words", limit=10)


def measure(distance: Distance, fusion: Fusion) -> tuple[int, bool]:
    name = f"{distance.value} {fusion.value}"
    params = VectorParams(size=32, distance=distance)
    client.create_collection(name, {"dense": params}, sparse_vectors_config={"words": SparseVectorParams()})
    sparse = [SparseVector(indices=[row % 50], values=[1 + row / 999]) for row in range(500)]
    points = [PointStruct(id=row, vector={"dense": rows[row].tolist(), "words": sparse[row]}) for row in range(500)]
    client.upsert(name, points)
    own, turned = 0, True
    for row, query in enumerate(queries.tolist()):
        dense = Prefetch(query=query, using="dense", limit=100)
        hits = client.query_points(name, prefetch=[dense, words], query=FusionQuery(fusion=fusion), limit=10).points
        own += row in (hit.id for hit in hits)
        plain = client.query_points(name, query=query, using="dense", limit=100).points
        twice = client.query_points(name, prefetch=[dense, dense], query=FusionQuery(fusion=fusion), limit=100).points
        turned = turned and [hit.id for hit in twice] == [hit.id for hit in plain][::-1]
    label = f"{distance.value}, {fusion.value.upper()}:"
    print(f"{label:17} {own} of 30 rows are among the ten, the same search twice is turned round: {turned}")
    return own, turned


right = [measure(distance, Fusion.DBSF) for distance in (Distance.COSINE, Distance.DOT)]
right.append(measure(Distance.EUCLID, Fusion.RRF))
wrong = [measure(distance, Fusion.DBSF) for distance in (Distance.EUCLID, Distance.MANHATTAN)]
if any(own < 29 or turned for own, turned in right):
    sys.exit("Similarities, or fusion by the places, are no longer right.")
if any(own > 1 or not turned for own, turned in wrong):
    sys.exit("Distances are no longer fused the wrong way round.")
PY
"$work/venv/bin/python" "$work/fusion.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
