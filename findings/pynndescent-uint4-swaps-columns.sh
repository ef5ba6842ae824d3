#!/usr/bin/env bash
# Version:   pynndescent 0.7.0 with numba 0.68.1 and numpy 2.4.6.
# Guess:     quantization="uint4" finds a little less than "uint8"; what is lost can be won back by a larger
#            candidate_width, since the candidates are ranked once more by the exact distance.
# Behaviour: it finds next to nothing. Two codes share a byte: those of the columns 0, 2, 4 ... are written into its upper
#            half and read from its lower one. Each number of a query is compared with the column beside its own. Rows
#            whose columns are equal in pairs are found.
# Why:       the option is new in 0.7.0, whose documentation names "uint8" and "uint4" in one line. The distances that
#            come back are exact for the rows that were found, and rise, so that nothing tells that the nearest are
#            missing. Nothing was found about this.
# Seen (of the ten nearest, from 40 candidates and from 100):
#   cosine, uint8: 1.00, 1.00
#   cosine, uint4: 0.01, 0.04
#   cosine, uint4, columns equal in pairs: 0.99, 1.00
#   euclidean, uint4: 0.09, 0.17
#   euclidean, uint4, columns equal in pairs: 0.49, 0.63
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export NUMBA_CACHE_DIR=$work/numba

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pynndescent==0.7.0 numba==0.68.1 numpy==2.4.6

cat > "$work/codes.py" <<'PY'
import sys

import numpy as np
import pynndescent

random = np.random.default_rng(0)
topics = random.standard_normal((16, 64))
rows, queries = ((random.standard_normal((count, 16)) @ topics).astype(np.float32) for count in (2000, 50))


def found(metric: str, codes: str, pairs: bool = False) -> float:
    """The share of the ten nearest rows that an index finds in its first candidates, and in more."""
    sides = [np.repeat(side[:, ::2], 2, axis=1) if pairs else side for side in (rows, queries)]
    index = pynndescent.NNDescent(sides[0], metric=metric, n_neighbors=30, random_state=1, quantization=codes)
    if metric == "cosine":
        distances = -(sides[1] @ sides[0].T) / np.linalg.norm(sides[0], axis=1)
    else:
        distances = ((sides[1][:, None] - sides[0]) ** 2).sum(axis=2)
    nearest = distances.argsort(axis=1)[:, :10].tolist()
    shares = []
    for candidates in (40, 100):
        hits, _ = index.query(sides[1], k=10, epsilon=0.3, candidate_width=candidates)
        shares.append(sum(len({*some} & {*best}) for some, best in zip(hits.tolist(), nearest)) / 500)
    label = f"{metric}, {codes}{', columns equal in pairs' if pairs else ''}"
    print(f"{label}: {shares[0]:.2f}, {shares[1]:.2f}")
    return shares[1]


if found("cosine", "uint8") < 0.9:
    sys.exit("uint8 finds less, too.")
for metric in ("cosine", "euclidean"):
    four, equal = found(metric, "uint4"), found(metric, "uint4", pairs=True)
    if four > 0.3 or four > equal / 2:
        sys.exit("uint4 finds the nearest now.")
PY
"$work/venv/bin/python" "$work/codes.py"
