#!/usr/bin/env bash
# Version:   duckdb 1.5.5 with its extension vss (duckdb-extension-vss 1.5.5) and numpy 2.4.6.
# Guess:     an HNSW index makes ORDER BY distance LIMIT 5 OFFSET 5 faster and, but for a missed neighbour, changes
#            nothing in what comes back.
# Behaviour: with the index OFFSET is left out: each page is the first one. LIMIT 10 gives the right ten rows. The index
#            gets the limit alone, and the step that would skip rows is no longer in the plan. It is so for each of the
#            three distances, and with a WHERE.
# Why:       CREATE INDEX turns a right program into a wrong one, without a word: page after page shows the same hits, and
#            a job that walks through all rows by their distance sees the first batch again and again. The documentation
#            asks for an ORDER BY followed by a LIMIT, and its list of limitations doesn't have this. That WHERE comes after
#            the index is known; nothing was found about OFFSET.
# Seen:
#   array_distance, no index:                15 of 15 rows on three pages, 15 as by numpy
#   array_distance, index:                   5 of 15 rows on three pages, 5 as by numpy
#   array_cosine_distance, no index:         15 of 15 rows on three pages, 15 as by numpy
#   array_cosine_distance, index:            5 of 15 rows on three pages, 5 as by numpy
#   array_negative_inner_product, no index:  15 of 15 rows on three pages, 15 as by numpy
#   array_negative_inner_product, index:     5 of 15 rows on three pages, 5 as by numpy
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet duckdb==1.5.5 duckdb-extension-vss==1.5.5 numpy==2.4.6

cat > "$work/pages.py" <<'PY'
import sys
from pathlib import Path

import duckdb
import duckdb_extension_vss
import numpy as np

SIZE = 16
random = np.random.default_rng(0)
rows = random.standard_normal((1000, SIZE)).astype(np.float32)
query = random.standard_normal(SIZE).astype(np.float32)
metrics = {
    "array_distance": ("l2sq", ((rows - query) ** 2).sum(axis=1)),
    "array_cosine_distance": ("cosine", -(rows @ query) / np.linalg.norm(rows, axis=1)),
    "array_negative_inner_product": ("ip", -(rows @ query)),
}
database = duckdb.connect()
extension = next(Path(duckdb_extension_vss.__file__).parent.rglob("vss.duckdb_extension"))
database.execute(f"LOAD '{extension}'")


def page(distance: str, limit: int, offset: int) -> list[int]:
    order = f"SELECT id FROM texts ORDER BY {distance}(vector, ?::FLOAT[{SIZE}]) LIMIT {limit} OFFSET {offset}"
    return [number for (number,) in database.execute(order, [query.tolist()]).fetchall()]


for distance, (metric, distances) in metrics.items():
    expected = {*distances.argsort()[:15].tolist()}
    database.execute(f"CREATE OR REPLACE TABLE texts (id INTEGER, vector FLOAT[{SIZE}])")
    database.executemany("INSERT INTO texts VALUES (?, ?)", [(at, row.tolist()) for at, row in enumerate(rows)])
    for index in (False, True):
        if index:
            database.execute(f"CREATE INDEX nearest ON texts USING HNSW (vector) WITH (metric = '{metric}')")
        seen = {number for offset in (0, 5, 10) for number in page(distance, 5, offset)}
        label = f"{distance}, {'index' if index else 'no index'}:"
        print(f"{label:40} {len(seen)} of 15 rows on three pages, {len(seen & expected)} as by numpy")
        if len({*page(distance, 15, 0)} & expected) < 14 or not index and seen != expected:
            sys.exit("The nearest rows are others.")
        if index and len(seen) > 5:
            sys.exit("OFFSET counts now.")
PY
"$work/venv/bin/python" "$work/pages.py"
