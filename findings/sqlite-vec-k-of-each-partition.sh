#!/usr/bin/env bash
# Version:   sqlite-vec 0.1.9 with apsw 3.54.1.0 and numpy 2.4.6.
# Guess:     "k = 10" gives the ten nearest rows that meet the rest of WHERE, nearest first; a metadata column does that.
# Behaviour: a partition key with IN (...) gives ten rows of each named partition, one partition after the other. A
#            condition on the rowid with < or > is applied to the ten nearest of all rows, so that fewer come back, often
#            none; rowid IN (...) is applied before the search.
# Why:       partition keys are advised for tenants, users and dates. Code that reads the rows in order takes the best of
#            the first tenant for the best of all; "newer than this id" finds nothing although rows exist. No error.
# Seen:
#   metadata IN (1, 2): 10 rows, in order of distance, the nearest is first
#   partition IN (1, 2): 20 rows, out of order, the nearest is at place 11
#   rowid IN (1 to 50): 10 rows
#   rowid <= 50: 0 rows
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet sqlite-vec==0.1.9 apsw==3.54.1.0 numpy==2.4.6

cat > "$work/partitions.py" <<'PY'
import sys

import apsw
import numpy as np
import sqlite_vec

random = np.random.default_rng(1)
vectors = random.standard_normal((1000, 16)).astype(np.float32)
groups = np.arange(1000) % 3
query = vectors[np.flatnonzero(groups == 2)[100]]
database = apsw.Connection(":memory:")
database.enable_load_extension(True)
database.load_extension(sqlite_vec.loadable_path())
for name, key in (("metadata", ""), ("partition", "partition key")):
    database.execute(f"create virtual table {name} using vec0(part integer {key}, vector float[16])")
    rows = ((i + 1, int(groups[i]), vectors[i].tobytes()) for i in range(1000))
    database.executemany(f"insert into {name}(rowid, part, vector) values (?, ?, ?)", rows)


def nearest(table: str, condition: str) -> list[float]:
    text = f"select distance from {table} where vector match ? and k = 10 and {condition}"
    return [distance for (distance,) in database.execute(text, (query.tobytes(),))]


found = {name: nearest(name, "part in (1, 2)") for name in ("metadata", "partition")}
for name, distances in found.items():
    place = distances.index(min(distances)) + 1
    order = "in order of distance" if distances == sorted(distances) else "out of order"
    print(f"{name} IN (1, 2): {len(distances)} rows, {order}, the nearest is {'first' if place == 1 else f'at place {place}'}")
listed = nearest("metadata", f"rowid in ({', '.join(map(str, range(1, 51)))})")
below = nearest("metadata", "rowid <= 50")
print(f"rowid IN (1 to 50): {len(listed)} rows")
print(f"rowid <= 50: {len(below)} rows")
if len(found["metadata"]) != 10 or len(listed) != 10:
    sys.exit("Metadata or rowid IN is no longer applied before the search.")
if len(found["partition"]) != 20 or len(below) == 10:
    sys.exit("Ten rows come back now.")
PY
"$work/venv/bin/python" "$work/partitions.py"
