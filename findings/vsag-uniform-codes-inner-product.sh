#!/usr/bin/env bash
# Version:   pyvsag 0.18.5 with numpy 2.4.6.
# Guess:     an index by cosine whose vectors are coded in 8 bits gives cosine distances, a little rounded, and
#            range_search the rows within a distance, as with "sq8".
# Behaviour: with "sq8_uniform" and "sq4_uniform" all distances by inner product and cosine are far too small: a row is
#            at -21 from itself, where a cosine distance is 0 to 2. The square of the least number, which the codes leave
#            out, is taken off once and not for each dimension. That is one number for all rows, so that the order of 8
#            bits is right, but range_search takes all rows for near. With use_reorder knn_search gives exact distances;
#            range_search still finds all rows, and gives distances beyond the one that was asked for. L2, where the
#            constant cancels, is right, and so is "sq8", which has a least number for each dimension.
# Why:       the uniform codes are the fast ones, which are compared without decoding, and unit vectors are searched by
#            cosine. Duplicates by range_search are then the whole corpus, cut-offs let everything through, and hits
#            always win beside those of another index. The documentation gives 1 - similarity for both metrics, with a
#            warning that they may differ from the textbook, and says that all codes support them. Nothing was found
#            about this.
# Seen (1000 pairs of unit vectors of 384 numbers):
#   brute_force, cosine, fp32:               -0.00 to itself,   0.11 to the next,    2 within 0.5, the last at   0.11
#   brute_force, cosine, sq8:                -0.00 to itself,   0.11 to the next,    2 within 0.5, the last at   0.11
#   brute_force, l2, sq8_uniform:             0.00 to itself,   0.22 to the next,    2 within 1.0, the last at   0.22
#   brute_force, ip, sq8_uniform:           -21.32 to itself, -21.22 to the next, 2000 within 0.5, the last at -20.17
#   brute_force, cosine, sq8_uniform:       -21.32 to itself, -21.22 to the next, 2000 within 0.5, the last at -20.17
#   brute_force, cosine, sq4_uniform:        -1.78 to itself,  -1.67 to the next, 2000 within 0.5, the last at  -0.83
#   hgraph, cosine, sq8_uniform, reordered:   0.00 to itself,   0.11 to the next, 2000 within 0.5, the last at   1.15
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pyvsag==0.18.5 numpy==2.4.6

cat > "$work/uniform.py" <<'PY'
import json
import sys

import numpy as np
import pyvsag

PAIRS, SIZE, WITHIN = 1000, 384, 0.5
random = np.random.default_rng(0)


def units(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


first, other = (units(random.standard_normal((PAIRS, SIZE))) for _ in range(2))
rows = np.stack([first, units(first + 0.5 * other)], axis=1).reshape(-1, SIZE)


def measure(kind: str, metric: str, codes: str, reorder: bool = False) -> tuple[np.ndarray, int, float]:
    """Distances of a row's nearest, how many rows are within 0.5 by range_search, and the largest distance of these."""
    settings = {"base_quantization_type": codes}
    if kind == "hgraph":
        settings |= {"max_degree": 32, "ef_construction": 200}
    if reorder:
        settings |= {"use_reorder": True, "precise_quantization_type": "fp32"}
    how = {"dtype": "float32", "metric_type": metric, "dim": SIZE, "index_param": settings}
    index = pyvsag.Index(kind, json.dumps(how))
    index.build(vectors=rows, ids=np.arange(len(rows)), num_elements=len(rows), dim=SIZE)
    search = json.dumps({kind: {"ef_search": 300}})
    numbers, distances = index.knn_search(vector=rows[7], k=2, parameters=search)
    # vsag's L2 is squared: of unit vectors it is twice the cosine distance.
    radius = WITHIN * (2 if metric == "l2" else 1)
    near, far = index.range_search(point=rows[7], threshold=radius, parameters=search)
    label = f"{kind}, {metric}, {codes}{', reordered' if reorder else ''}:"
    print(f"{label:39} {distances[0]:6.2f} to itself, {distances[1]:6.2f} to the next, ", end="")
    print(f"{len(near):4} within {radius}, the last at {far.max():6.2f}")
    if numbers.tolist() != [7, 6]:
        sys.exit("The nearest rows are others.")
    return distances, len(near), float(far.max())


for codes in ("fp32", "sq8"):
    distances, near, _ = measure("brute_force", "cosine", codes)
    if abs(distances[0]) > 0.01 or near != 2:
        sys.exit(f"Distances of {codes} are wrong.")
for metric in ("l2", "ip", "cosine"):
    distances, near, _ = measure("brute_force", metric, "sq8_uniform")
    if metric == "l2" and (abs(distances[0]) > 0.01 or near != 2):
        sys.exit("L2 is wrong, too.")
    if metric != "l2" and (distances[0] > -1 or near < len(rows)):
        sys.exit("Distances of sq8_uniform are right now.")
distances, near, _ = measure("brute_force", "cosine", "sq4_uniform")
if distances[0] > -1 or near < len(rows):
    sys.exit("Distances of sq4_uniform are right now.")
distances, near, last = measure("hgraph", "cosine", "sq8_uniform", reorder=True)
if abs(distances[0]) > 0.01 or near < len(rows) / 2 or last < 2 * WITHIN:
    sys.exit("Reordering corrects range_search now.")
PY
"$work/venv/bin/python" "$work/uniform.py" | sed '/\[info\]/d'
