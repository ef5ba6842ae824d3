#!/usr/bin/env bash
# Version:   usearch 2.26.6 with numpy 2.4.6.
# Guess:     dtype="i8" rounds each vector; with metric="ip" or "l2sq" its length still counts, as with "f32" and "f16".
# Behaviour: each vector is scaled to length 127 before it is rounded, whatever the metric. The inner product becomes the
#            cosine, a vector ten times as long gets the same score, and get() returns the scaled codes; distances are
#            in codes squared. f16 and the 8-bit floats keep lengths.
# Why:       models trained for the dot product (msmarco's, DPR) put the weight of a text into
#            its length. Their index with "i8" answers without an error and in cosine's order; on data of one length,
#            on which such an index is tried, it is right.
# Seen:
#   lengths by dot product of the ten first: f32 1.8, f16 1.8, i8 1.1
#   of the ten first by dot product: f16 finds 10.0, i8 3.6; of the ten first by cosine: i8 9.4
#   one vector and the same ten times as long, "l2sq": f32 243.0, i8 0.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet usearch==2.26.6 numpy==2.4.6

cat > "$work/lengths.py" <<'PY'
import sys

import numpy as np
from usearch.index import Index

random = np.random.default_rng(0)
directions = random.standard_normal((2000, 96)).astype(np.float32)
directions /= np.linalg.norm(directions, axis=1, keepdims=True)
documents = directions * random.uniform(0.2, 2.0, (2000, 1)).astype(np.float32)
queries = random.standard_normal((50, 96)).astype(np.float32)


def nearest(dtype: str) -> np.ndarray:
    index = Index(ndim=96, metric="ip", dtype=dtype)
    index.add(np.arange(len(documents)), documents)
    return index.search(queries, 10, exact=True).keys.astype(int)


def shared(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.mean([len({*a} & {*b}) for a, b in zip(left.tolist(), right.tolist())]))


found = {dtype: nearest(dtype) for dtype in ("f32", "f16", "i8")}
lengths = {dtype: float(np.linalg.norm(documents[rows], axis=2).mean()) for dtype, rows in found.items()}
by_dot = np.argsort(-(queries @ documents.T), axis=1)[:, :10]
by_cosine = np.argsort(-(queries @ directions.T), axis=1)[:, :10]
half, eighth, turned = shared(found["f16"], by_dot), shared(found["i8"], by_dot), shared(found["i8"], by_cosine)
print("lengths by dot product of the ten first:", ", ".join(f"{dtype} {mean:.1f}" for dtype, mean in lengths.items()))
print(f"of the ten first by dot product: f16 finds {half:.1f}, i8 {eighth:.1f}; of the ten first by cosine: i8 {turned:.1f}")
apart = {}
for dtype in ("f32", "i8"):
    index = Index(ndim=3, metric="l2sq", dtype=dtype)
    index.add(0, np.array([1, 1, 1], np.float32))
    apart[dtype] = float(index.search(np.array([10, 10, 10], np.float32), 1, exact=True).distances[0])
print(f'one vector and the same ten times as long, "l2sq": f32 {apart["f32"]:.1f}, i8 {apart["i8"]:.1f}')
if half < 9.5:
    sys.exit("f16 no longer keeps lengths.")
if eighth > 7 or turned < 8 or apart["i8"] != 0:
    sys.exit("i8 now keeps lengths.")
PY
"$work/venv/bin/python" "$work/lengths.py"
