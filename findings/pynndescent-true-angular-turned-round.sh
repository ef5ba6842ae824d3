#!/usr/bin/env bash
# Version:   pynndescent 0.7.0 with numba 0.68.1, scikit-learn 1.9.1 and numpy 2.4.6.
# Guess:     with metric="true_angular" the distances that come back grow with the angle, from 0 for the same direction.
# Behaviour: the rows are the right ones, in the right order, and their distances fall: the number is 1 less the angle in
#            half turns. A row is at 1 from itself by query() and at 0 in the graph, where all other rows are farther the
#            nearer they are. A neighbour behind the right angle is at 0.5, whatever its angle.
# Why:       the docstring says "Returns 0 for identical directions, approaches 1 for opposite directions". Whoever
#            keeps what is within a distance keeps the farthest, votes by 1 / distance weigh the last neighbour most,
#            and a graph for t-SNE or clustering joins each row most closely to the least like of its neighbours. Cosine
#            distances, of the same order, are right.
# Seen:
#   query(), cosine:       0.00 0.18 0.18 0.19 0.21
#   query(), true_angular: 1.00 0.81 0.81 0.80 0.79, by the angle 0.00 0.19 0.19 0.20 0.21
#   graph, true_angular:   0.00 0.81 0.81 0.80 0.79
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export NUMBA_CACHE_DIR=$work/numba

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pynndescent==0.7.0 numba==0.68.1 scikit-learn==1.9.1 numpy==2.4.6

cat > "$work/angles.py" <<'PY'
import sys

import numpy as np
import pynndescent

random = np.random.default_rng(0)
topics = 3 * random.standard_normal((5, 32))
rows = (topics[random.integers(0, 5, 500)] + 2 * random.standard_normal((500, 32))).astype(np.float32)


def shown(numbers: np.ndarray) -> str:
    return " ".join(f"{number:.2f}" for number in numbers)


cosine = pynndescent.NNDescent(rows, metric="cosine", n_neighbors=15, random_state=1)
angular = pynndescent.NNDescent(rows, metric="true_angular", n_neighbors=15, random_state=1)
(expected, distances), (hits, found) = (index.query(rows[:1], k=5, epsilon=0.3) for index in (cosine, angular))
others = rows[hits[0]]
angles = np.arccos(np.clip(others @ rows[0] / np.linalg.norm(others, axis=1) / np.linalg.norm(rows[0]), -1, 1)) / np.pi
graph = angular.neighbor_graph[1][0, :5]
print(f"query(), cosine:       {shown(distances[0])}")
print(f"query(), true_angular: {shown(found[0])}, by the angle {shown(angles)}")
print(f"graph, true_angular:   {shown(graph)}")
if hits.tolist() != expected.tolist() or hits[0, 0] != 0:
    sys.exit("The rows are others than by the cosine.")
if (np.diff(distances[0]) < 0).any() or (np.diff(angles) < 0).any():
    sys.exit("The hits are out of order.")
if not np.allclose(found[0], 1 - angles, atol=1e-3) or graph[0] != 0 or (np.diff(graph[1:]) > 0).any():
    sys.exit("Distances by true_angular grow with the angle now.")
PY
"$work/venv/bin/python" "$work/angles.py"
