#!/usr/bin/env bash
# Version:   maxsim-cpu 0.1.0 with numpy 2.4.6.
# Guess:     a score depends on the numbers in the arrays, and an array that the library can't read raises an error, as
#            every second row of one does ("not contiguous").
# Behaviour: an array in column order, as the transpose of [dimensions, tokens] or what pandas' and polars' to_numpy()
#            gives, has its memory read as if it were in row order: the numbers are those of no token. Queries, lists of
#            documents and batches of them are read so, without an error, and the documents are ranked by chance.
#            numpy's own product of the same arrays is right.
# Why:       token vectors come out of a data frame, are kept with the dimensions first or were transposed on the way.
#            The scores have the right shape and size, and a test with a fresh array is right.
# Seen:
#   all in rows           30 of 30 queries find their document, scores off by up to 0.00
#   documents in columns  2 of 30 queries find their document, scores off by up to 6.29
#   queries in columns    1 of 30 queries find their document, scores off by up to 6.38
#   a batch in rows       30 of 30 queries find their document, scores off by up to 0.00
#   a batch in columns    0 of 30 queries find their document, scores off by up to 6.35
#   every second row: The given array is not contiguous
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet maxsim-cpu==0.1.0 numpy==2.4.6

cat > "$work/order.py" <<'PY'
import sys

import numpy as np
from maxsim_cpu import maxsim_scores, maxsim_scores_variable

random = np.random.default_rng(0)


def unit(*shape: int) -> np.ndarray:
    vectors = random.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


documents = unit(30, 40, 128)
queries = [document[::5] + 0.3 * unit(8, 128) for document in documents]
queries = [query / np.linalg.norm(query, axis=1, keepdims=True) for query in queries]
right = np.array([[(query @ document.T).max(axis=1).sum() for document in documents] for query in queries])
in_columns = [np.asfortranarray(document) for document in documents]
ways = {
    "all in rows": [maxsim_scores_variable(query, list(documents)) for query in queries],
    "documents in columns": [maxsim_scores_variable(query, in_columns) for query in queries],
    "queries in columns": [maxsim_scores_variable(np.asfortranarray(query), list(documents)) for query in queries],
    "a batch in rows": [maxsim_scores(query, documents) for query in queries],
    "a batch in columns": [maxsim_scores(query, np.asfortranarray(documents)) for query in queries],
}
for name, found in ways.items():
    own = int((np.argmax(found, axis=1) == np.arange(30)).sum())
    apart = float(np.abs(np.array(found) - right).max())
    print(f"{name:21} {own} of 30 queries find their document, scores off by up to {apart:.2f}")
    if name.endswith("rows") and (own < 30 or apart > 0.01):
        sys.exit("Arrays in row order are no longer right.")
    if name.endswith("columns") and (own > 15 or apart < 0.5):
        sys.exit("The order of an array in memory no longer counts.")
try:
    maxsim_scores_variable(queries[0], [np.repeat(document, 2, axis=0)[::2] for document in documents])
    sys.exit("Every second row of an array is no longer refused.")
except TypeError as error:
    print("every second row:", error)
PY
"$work/venv/bin/python" "$work/order.py"
