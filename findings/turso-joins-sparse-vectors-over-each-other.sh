#!/usr/bin/env bash
# Version:   pyturso 0.8.3 with numpy 2.4.6.
# Guess:     vector_concat of two sparse vectors is the sparse form of what it makes of them as dense ones: the second
#            stands behind the first.
# Behaviour: it has the sum of both widths, but the second's numbers keep their places: they lie over the first's, and
#            all behind is empty. Where both have a number in one place, two stand there: each distance counts what it
#            meets. vector_slice of a sparse vector is right, and so are distances of sparse vectors that were not
#            joined.
# Cause:     the places of the second are copied without the first's width being added.
# Why:       a sparse vector of the title and one of the text, joined, are scored in one go, as one does with dense
#            ones. The result has the right width and passes for a vector; words of a title then count as words of a
#            text.
# Seen:
#   vector32:        [1,0,2] and [0,3,0] make [1,0,2,0,3,0]; of the ten nearest 10.0 found
#   vector32_sparse: [1,0,2] and [0,3,0] make [1,3,2,0,0,0]; of the ten nearest  4.6 found
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pyturso==0.8.3 numpy==2.4.6

cat > "$work/join.py" <<'PY'
import json
import sys

import numpy as np
import turso

ROWS, WORDS, QUERIES = 300, 40, 20
random = np.random.default_rng(0)


def sparse(count: int) -> np.ndarray:
    """Vectors of which a fifth is not 0."""
    weights = random.integers(1, 9, (count, WORDS)) * (random.random((count, WORDS)) < 0.2)
    return weights.astype(np.float32)


rows, queries = ((sparse(count), sparse(count)) for count in (ROWS, QUERIES))
scores = np.concatenate(queries, axis=1) @ np.concatenate(rows, axis=1).T
database = turso.connect(":memory:")
seen = {}
for kind in ("vector32", "vector32_sparse"):
    database.execute(f"CREATE TABLE {kind}_rows (id INTEGER PRIMARY KEY, title BLOB, body BLOB)")
    for number, (title, body) in enumerate(zip(*rows)):
        texts = number, json.dumps(title.tolist()), json.dumps(body.tolist())
        database.execute(f"INSERT INTO {kind}_rows VALUES (?, {kind}(?), {kind}(?))", texts)
    order = (
        f"SELECT id FROM {kind}_rows ORDER BY"
        f" vector_distance_dot(vector_concat(title, body), vector_concat({kind}(?), {kind}(?))) LIMIT 10"
    )
    shares = []
    for title, body, score in zip(*queries, scores):
        hits = database.execute(order, (json.dumps(title.tolist()), json.dumps(body.tolist()))).fetchall()
        # A hit counts where it has the score of one of the ten highest.
        shares.append(sum(score[number] >= np.sort(score)[-10] for (number,) in hits))
    joined = f"vector_extract(vector_concat({kind}('[1,0,2]'), {kind}('[0,3,0]')))"
    seen[kind] = database.execute(f"SELECT {joined}").fetchone()[0], float(np.mean(shares))
    text, share = seen[kind]
    print(f"{kind + ':':16} [1,0,2] and [0,3,0] make {text}; of the ten nearest {share:4.1f} found")
if json.loads(seen["vector32"][0]) != [1, 0, 2, 0, 3, 0] or seen["vector32"][1] != 10:
    sys.exit("Dense vectors are no longer joined as they should be.")
if json.loads(seen["vector32_sparse"][0]) != [1, 3, 2, 0, 0, 0] or seen["vector32_sparse"][1] > 6:
    sys.exit("Sparse vectors are joined otherwise now.")
PY
"$work/venv/bin/python" "$work/join.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
