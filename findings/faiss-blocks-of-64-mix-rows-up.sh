#!/usr/bin/env bash
# Version:   faiss-cpu 1.15.1 with numpy 2.4.6.
# Guess:     a fast-scan index in blocks of 64 or 96 codes ("PQ32x4fs_64"), which faiss's documentation names beside the
#            usual 32, does all that one in blocks of 32 does: gives rows back, removes some, takes in another's.
# Behaviour: search is the same. But reconstruct gives half of the rows, of blocks of 96 two thirds, the vectors of
#            others, as if the block were of 32. remove_ids and merge_from keep what they so read, in silence: from then
#            on search finds next to nothing, over IVF half of what it should.
# Why:       the size of the block is tuned by the speed of search, where all is right. What goes wrong is the upkeep of
#            the index, and diverse or exact reranking over reconstruct. What comes back has the length of a row.
# Seen (the mean cosine of a row and what reconstruct gives for it; what search finds of the ten nearest as built, after
#       a third was removed, and after two halves were merged; a point more or less each time):
#   PQ32x4fs:          cosine 0.95; found 58%, 61%, 58%
#   PQ32x4fs_64:       cosine 0.47; found 58%, 1%, 22%
#   PQ32x4fs_96:       cosine 0.32; found 58%, 1%, 19%
#   IVF16,PQ32x4fs:    cosine 0.95; found 58%, 61%, 58%
#   IVF16,PQ32x4fs_64: cosine 0.52; found 58%, 32%, 28%
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet faiss-cpu==1.15.1 numpy==2.4.6

cat > "$work/blocks.py" <<'PY'
import sys

import faiss
import numpy as np

ROWS, SIZE = 3000, 64
random = np.random.default_rng(0)
rows, queries = (random.standard_normal((count, SIZE)).astype(np.float32) for count in (ROWS, 100))
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
scores = queries @ rows.T


def found(index: faiss.Index, first: int, renumbered: bool) -> float:
    """The share of the ten nearest among the rows from `first` on; `renumbered`: the index calls that one 0."""
    hits = index.search(queries, 10)[1] + (first if renumbered else 0)
    nearest = np.argsort(-scores[:, first:], axis=1)[:, :10] + first
    return float(np.mean([len({*left} & {*right}) / 10 for left, right in zip(hits.tolist(), nearest.tolist())]))


seen = {}
for name in ("PQ32x4fs", "PQ32x4fs_64", "PQ32x4fs_96", "IVF16,PQ32x4fs", "IVF16,PQ32x4fs_64"):
    cells = name.startswith("IVF")
    trained = faiss.index_factory(SIZE, name, faiss.METRIC_INNER_PRODUCT)
    trained.train(rows)
    if cells:
        trained.nprobe = 16
    whole, smaller, left, right = (faiss.clone_index(trained) for _ in range(4))
    whole.add(rows)
    smaller.add(rows)
    smaller.remove_ids(np.arange(ROWS // 3))
    left.add(rows[: ROWS // 2])
    right.add(rows[ROWS // 2 :])
    left.merge_from(right, ROWS // 2 if cells else 0)
    shares = found(whole, 0, False), found(smaller, ROWS // 3, not cells), found(left, 0, False)
    if cells:
        whole.make_direct_map()
    given = whole.reconstruct_n(0, ROWS)
    cosine = float(np.mean((given * rows).sum(1) / np.linalg.norm(given, axis=1)))
    seen[name] = cosine, *shares
    print(f"{name + ':':18} cosine {cosine:.2f}; found {', '.join(f'{share:.0%}' for share in shares)}")
for name, (cosine, built, smaller, merged) in seen.items():
    if built < 0.5:
        sys.exit(f"{name} no longer finds what the others find.")
    if name.endswith("fs"):
        if cosine < 0.9 or min(smaller, merged) < 0.5:
            sys.exit(f"{name} is no longer right either.")
    elif cosine > 0.7 or max(smaller, merged) > 0.45:
        sys.exit(f"{name} keeps its rows now.")
PY
"$work/venv/bin/python" "$work/blocks.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
