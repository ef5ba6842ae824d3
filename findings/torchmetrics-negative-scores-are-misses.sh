#!/usr/bin/env bash
# Version:   torchmetrics 1.9.0 with torch 2.13.0 and numpy 2.4.6.
# Guess:     the retrieval metrics look at the order of the scores alone: subtracting 1 from all changes nothing.
# Behaviour: RetrievalMAP, RetrievalMRR, RetrievalRecall and RetrievalPrecision take a relevant document whose score is
#            0 or less for an irrelevant one. RetrievalNormalizedDCG, RetrievalHitRate and RetrievalRPrecision do not, so
#            that the numbers contradict each other. MAP drops such a document from what there is to find, too.
# Why:       logits of a cross-encoder, negated distances and cosines of weak matches are negative; a perfect order of
#            them has a MAP and an MRR of 0, and some below 0 give a plausible number, or a higher one. The arguments
#            are said to be "estimated probabilities", but any float is taken and the range is not checked.
# Seen:
#                          MAP          MRR    Recall@10 Precision@10      nDCG@10   HitRate@10   RPrecision
#   cosines + 1          0.665        0.902        0.767        0.383        0.744        0.995        0.574
#   cosines - 0.3        0.796        0.897        0.693        0.347        0.744        0.995        0.574
#   cosines - 1          0.000        0.000        0.000        0.000        0.744        0.995        0.574
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6

cat > "$work/negative.py" <<'PY'
import sys

import numpy as np
import torch
from torchmetrics import retrieval

random = np.random.default_rng(0)
queries, documents = random.standard_normal((200, 32)), random.standard_normal((200, 100, 32))
relevant = np.arange(100) < 5
documents[:, relevant] += 0.4 * queries[:, None]
queries /= np.linalg.norm(queries, axis=1, keepdims=True)
documents /= np.linalg.norm(documents, axis=2, keepdims=True)
cosines = torch.tensor(np.einsum("qd,qnd->qn", queries, documents), dtype=torch.float64)
targets = torch.tensor(relevant).repeat(200, 1)
of_query = torch.arange(200)[:, None].repeat(1, 100)
metrics = {
    "MAP": retrieval.RetrievalMAP(),
    "MRR": retrieval.RetrievalMRR(),
    "Recall@10": retrieval.RetrievalRecall(top_k=10),
    "Precision@10": retrieval.RetrievalPrecision(top_k=10),
    "nDCG@10": retrieval.RetrievalNormalizedDCG(top_k=10),
    "HitRate@10": retrieval.RetrievalHitRate(top_k=10),
    "RPrecision": retrieval.RetrievalRPrecision(),
}
print(" " * 13, *(f"{name:>12}" for name in metrics))
measured = {}
for label, shift in (("cosines + 1", 1), ("cosines - 0.3", -0.3), ("cosines - 1", -1)):
    values = [float(metric(cosines + shift, targets, indexes=of_query)) for metric in metrics.values()]
    print(f"{label:13}", *(f"{value:12.3f}" for value in values))
    measured[label] = dict(zip(metrics, values))
above, below = measured["cosines + 1"], measured["cosines - 1"]
if any(abs(above[name] - below[name]) > 1e-6 for name in ("nDCG@10", "HitRate@10", "RPrecision")):
    sys.exit("nDCG, the hit rate or the R-precision now depend on the sign.")
if any(below[name] > 0 for name in ("MAP", "MRR", "Recall@10", "Precision@10")):
    sys.exit("Relevant documents of negative scores count now.")
PY
"$work/venv/bin/python" "$work/negative.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
