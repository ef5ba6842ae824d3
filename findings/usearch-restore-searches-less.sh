#!/usr/bin/env bash
# Version:   usearch 2.26.6 with numpy 2.4.6.
# Guess:     Index.restore(path) gives the index that save(path) wrote.
# Behaviour: it gives the same graph, with the defaults of the two numbers that decide how well it is searched and
#            grown: expansion_search is 64 and expansion_add 128 again. copy() keeps them. load() into an index that
#            was made with the numbers keeps them too.
# Why:       the file knows the metric, the type, the number of dimensions and of links, so that restore() asks for
#            nothing else. A search that was tuned to find everything loses a quarter of it at the next start.
# Seen:
#   as built:             expansion_search 1000, expansion_add 256, 100% of the ten nearest
#   copy():               expansion_search 1000, expansion_add 256, 100% of the ten nearest
#   restore():            expansion_search 64, expansion_add 128, 76% of the ten nearest
#   load() into the same: expansion_search 1000, expansion_add 256, 100% of the ten nearest
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet usearch==2.26.6 numpy==2.4.6

cat > "$work/restore.py" <<'PY'
import sys

import numpy as np
from usearch.index import Index

random = np.random.default_rng(0)
rows, queries = (random.standard_normal((count, 128)).astype(np.float32) for count in (5000, 100))
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
nearest = np.argsort(-(queries @ rows.T), axis=1)[:, :10].tolist()
settings = {"ndim": 128, "metric": "cos", "dtype": "f32", "expansion_add": 256, "expansion_search": 1000}

built = Index(**settings)
built.add(np.arange(len(rows)), rows)
built.save(sys.argv[1])
loaded = Index(**settings)
loaded.load(sys.argv[1])
indexes = {"as built": built, "copy()": built.copy(), "restore()": Index.restore(sys.argv[1])}
indexes["load() into the same"] = loaded
for name, index in indexes.items():
    found = index.search(queries, 10).keys.tolist()
    share = sum(len({*left} & {*right}) for left, right in zip(found, nearest)) / 1000
    search, add = index.expansion_search, index.expansion_add
    print(f"{name + ':':21} expansion_search {search}, expansion_add {add}, {share:.0%} of the ten nearest")
    if name == "restore()":
        if (search, add) != (64, 128) or share > 0.9:
            sys.exit("restore() now keeps how the index is searched.")
    elif (search, add) != (1000, 256) or share < 0.97:
        sys.exit(f"{name} no longer keeps how the index is searched.")
PY
"$work/venv/bin/python" "$work/restore.py" "$work/index" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
