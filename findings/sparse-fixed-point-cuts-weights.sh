#!/usr/bin/env bash
# Version:   kannolo 0.15.1 and pyseismic-lsr 0.5.4 with numpy 2.4.6.
# Guess:     an index with 8-bit weights rounds them, more coarsely where they are larger. Weights five times as large
#            give the same order.
# Behaviour: the steps are fixed: kannolo's SparseFixedU8HNSW and SparseDotPacking8HNSW and seismic's
#            SeismicIndexDotVByte hold weights up to 3.98, SparseFixedU16HNSW up to 8. Whatever is larger is cut there,
#            without a word, in the documents; queries keep theirs. The other indexes of both keep the weights.
# Why:       SPLADE's weights are about 3 at most, so that all is well with the models that such indexes are tried on.
#            Those of BM25 reach 10, and learned ones are stored as whole numbers up to 255 as well: in each text the
#            words that tell most are then all worth the same.
# Seen:
#   kannolo.SparsePlainHNSW        100% of the ten nearest, with weights five times as large 100%
#   kannolo.SparseFixedU8HNSW      99% of the ten nearest, with weights five times as large 40%
#   kannolo.SparseDotPacking8HNSW  99% of the ten nearest, with weights five times as large 40%
#   kannolo.SparseFixedU16HNSW     100% of the ten nearest, with weights five times as large 64%
#   seismic.SeismicIndex           100% of the ten nearest, with weights five times as large 100%
#   seismic.SeismicIndexDotVByte   99% of the ten nearest, with weights five times as large 40%
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet kannolo==0.15.1 pyseismic-lsr==0.5.4 numpy==2.4.6

cat > "$work/weights.py" <<'PY'
import sys
from collections.abc import Callable

import kannolo
import numpy as np
import seismic

DOCUMENTS, WORDS, EACH = 2000, 400, 25
NAMES = (
    "kannolo.SparsePlainHNSW",
    "kannolo.SparseFixedU8HNSW",
    "kannolo.SparseDotPacking8HNSW",
    "kannolo.SparseFixedU16HNSW",
    "seismic.SeismicIndex",
    "seismic.SeismicIndexDotVByte",
)

random = np.random.default_rng(0)
text = seismic.get_seismic_string()


def sparse(count: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """The words of each text, and their weights, which are 3 at most."""
    words = np.stack([np.sort(random.choice(WORDS, each, replace=False)) for _ in range(count)])
    return words.astype(np.int32), 3 * random.beta(1, 3, (count, each)).astype(np.float32)


words, weights = sparse(DOCUMENTS, EACH)
asked, asked_weights = sparse(50, 8)
table, queries = np.zeros((DOCUMENTS, WORDS), np.float32), np.zeros((50, WORDS), np.float32)
np.put_along_axis(table, words, weights, axis=1)
np.put_along_axis(queries, asked, asked_weights, axis=1)
nearest = np.argsort(-(queries @ table.T), axis=1)[:, :10].tolist()


def built(name: str, times: float) -> Callable[[np.ndarray, np.ndarray], list[int]]:
    """A search in an index of the documents, their weights so many times as large."""
    library, kind = name.split(".")
    if library == "kannolo":
        settings = {"metric": "dotproduct"} if "Fixed" in kind else {}
        offsets = np.arange(DOCUMENTS + 1, dtype=np.int64) * EACH
        index = getattr(kannolo, kind).build_from_arrays(words.ravel(), (times * weights).ravel(), offsets, **settings)
        return lambda some, values: index.search(some, values, 10, ef_search=500)[1].tolist()
    dataset = seismic.SeismicDataset()
    for row in range(DOCUMENTS):
        dataset.add_document(str(row), np.array([str(word) for word in words[row]], dtype=text), times * weights[row])
    index = getattr(seismic, kind).build_from_dataset(dataset, num_threads=1)
    return lambda some, values: [
        int(hit[2]) for hit in index.search("", np.array([str(word) for word in some], dtype=text), values, 10, 8, 0.7)
    ]


for name in NAMES:
    shares = []
    for times in (1, 5):
        search = built(name, times)
        found = [search(*query) for query in zip(asked, asked_weights)]
        shares.append(sum(len({*left} & {*right}) for left, right in zip(found, nearest)) / 500)
    said = f"{name:30} {shares[0]:.0%} of the ten nearest, with weights five times as large {shares[1]:.0%}"
    print(said, file=sys.stderr)  # seismic writes about its work into the output
    if shares[0] < 0.95:
        sys.exit(f"{name} no longer finds the documents with small weights.")
    if (shares[1] < 0.8) != (name not in ("kannolo.SparsePlainHNSW", "seismic.SeismicIndex")):
        sys.exit(f"{name} treats large weights in another way now.")
PY
"$work/venv/bin/python" "$work/weights.py" >"$work/built"
