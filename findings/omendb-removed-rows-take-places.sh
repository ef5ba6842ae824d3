#!/usr/bin/env bash
# Version:   omendb 0.0.37 with numpy 2.4.6.
# Guess:     a search for k rows gives k rows, as long as there are as many, whatever was deleted or written anew before.
# Behaviour: the nearest k are taken among the rows and what was deleted or replaced; then the latter are left out. With half
#            of the rows deleted a search for 10 gives 5; with all rows written again as they were, 5; the third time, 3.
#            Through update() it is the same as through set(), and with search() as with search_batch(). flush() or
#            compact() cleans up, and all are there again.
# Why:       set() is said to insert or replace, and compact() to be for memory and speed. A store that is written anew each
#            night from its source loses recall with every round until it is flushed; a list of hits has the length that a
#            small store would have, so that nothing looks wrong. Nothing was found about this.
# Seen (hits of a search for 10, and how many of the ten nearest are among them):
#   2000 rows:                    10.0, 10.0
#   half of them deleted:         5.1, 5.1
#   the same rows set a 2nd time: 5.0, 5.0
#   the same rows set a 3rd time: 3.0, 3.0
#   their vectors updated:        2.0, 2.0
#   after flush():                10.0, 10.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet omendb==0.0.37 numpy==2.4.6

cat > "$work/places.py" <<'PY'
import sys

import numpy as np
import omendb

random = np.random.default_rng(0)
topics = random.standard_normal((16, 64))
rows, queries = ((random.standard_normal((count, 16)) @ topics).astype(np.float32) for count in (2000, 50))
distances = ((queries[:, None] - rows) ** 2).sum(axis=2)
items = [{"id": str(at), "vector": row.tolist()} for at, row in enumerate(rows)]


def look(label: str, database, first: int = 0) -> tuple[float, float]:
    """The mean number of hits, and of those that are among the ten nearest from the given row on."""
    found = [{int(hit["id"]) for hit in database.search(query, 10)} for query in queries]
    together = [{int(hit["id"]) for hit in some} for some in database.search_batch(queries, 10)]
    nearest = (distances[:, first:].argsort(axis=1)[:, :10] + first).tolist()
    hits = sum(map(len, found)) / len(found)
    right = sum(len(some & {*best}) for some, best in zip(found, nearest)) / len(found)
    print(f"{label + ':':29} {hits:.1f}, {right:.1f}")
    if found != together:
        sys.exit("search_batch() finds other rows than search().")
    return hits, right


database = omendb.create(":memory:", {"dense": {"dim": 64}})
database.set(items)
whole = look("2000 rows", database)
database.delete([str(at) for at in range(1000)])
fewer = [look("half of them deleted", database, first=1000)]
database = omendb.create(":memory:", {"dense": {"dim": 64}})
database.set(items)
for round in ("2nd", "3rd"):
    database.set(items)
    fewer.append(look(f"the same rows set a {round} time", database))
for item in items:
    database.update(item["id"], vector=item["vector"])
fewer.append(look("their vectors updated", database))
if len(database) != len(rows):
    sys.exit("Rows are missing.")
database.flush()
after = look("after flush()", database)
if min(*whole, *after) < 9.5:
    sys.exit("A store without removed rows finds less, too.")
if max(hits for hits, _ in fewer) > 7:
    sys.exit("Removed rows take no places now.")
PY
"$work/venv/bin/python" "$work/places.py"
