#!/usr/bin/env bash
# Version:   voyager 2.2.3 with numpy 2.4.6.
# Guess:     get_distance(a, b) is the distance that query(a) gives for the row b: of Space.InnerProduct 1 minus the inner
#            product.
# Behaviour: for the inner product voyager keeps one number more of each row, with which all rows become as long as the
#            longest so far. query() leaves it out. get_distance() gives it to both vectors and counts it, so that what
#            comes back has little to do with their product, and is another after a longer row was added, which neither
#            of them has to do with. Cosine and Euclidean distances are those of query().
# Why:       with rows of one length the two agree, and so does a first test. For the vectors of a model for the dot
#            product, rescoring by get_distance() puts the shortest rows first, whatever the query.
# Seen:
#   one query and its nearest row: query() -34.5, get_distance() -204.5, 1 minus the inner product -34.5
#   get_distance() of two rows -170.0; of the same two after a longer row was added: -787.0
#   of the ten first by inner product get_distance() finds 0.0, of the ten shortest rows 0.4
#   Cosine: query() 0.634, get_distance() 0.634
#   Euclidean: query() 60.472, get_distance() 60.472
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet voyager==2.2.3 numpy==2.4.6

cat > "$work/distance.py" <<'PY'
import sys

import numpy as np
from voyager import Index, Space

random = np.random.default_rng(0)
rows = random.standard_normal((1000, 64)).astype(np.float32)
rows *= random.uniform(0.5, 2, (len(rows), 1)).astype(np.float32)
queries = random.standard_normal((50, 64)).astype(np.float32)


def filled(space: Space) -> Index:
    index = Index(space, num_dimensions=64)
    # One thread, so that the graph is the same each time.
    index.add_items(rows, num_threads=1)
    return index


def both(index: Index) -> tuple[int, float, float]:
    """The first query's nearest row, its distance by query() and by get_distance()."""
    (row,), (distance,) = index.query(queries[0], 1)
    return int(row), float(distance), index.get_distance(queries[0], rows[row])


index = filled(Space.InnerProduct)
row, asked, told = both(index)
true = 1 - float(queries[0] @ rows[row])
print(f"one query and its nearest row: query() {asked:.1f}, get_distance() {told:.1f}, 1 minus the inner product {true:.1f}")
before = index.get_distance(rows[0], rows[1])
by_product = np.argsort(-(queries @ rows.T), axis=1)[:, :10].tolist()
shortest = {*np.argsort(np.linalg.norm(rows, axis=1))[:10].tolist()}
hits = [{*np.argsort([index.get_distance(query, other) for other in rows])[:10].tolist()} for query in queries]
found = float(np.mean([len(some & {*best}) for some, best in zip(hits, by_product)]))
short = float(np.mean([len(some & shortest) for some in hits]))
index.add_item(rows[2] * 5)
after = index.get_distance(rows[0], rows[1])
print(f"get_distance() of two rows {before:.1f}; of the same two after a longer row was added: {after:.1f}")
print(f"of the ten first by inner product get_distance() finds {found:.1f}, of the ten shortest rows {short:.1f}")
if abs(asked - true) > 0.01:
    sys.exit("query() no longer gives 1 minus the inner product.")
if abs(told - true) < 1 or abs(before - after) < 1 or found > 3:
    sys.exit("get_distance() gives 1 minus the inner product now.")
for space in (Space.Cosine, Space.Euclidean):
    _, asked, told = both(filled(space))
    print(f"{space.name}: query() {asked:.3f}, get_distance() {told:.3f}")
    if abs(asked - told) > 0.01:
        sys.exit(f"get_distance() of {space.name} is no longer that of query().")
PY
"$work/venv/bin/python" "$work/distance.py"
