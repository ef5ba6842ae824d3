#!/usr/bin/env bash
# Version:   pytrec-eval-terrier 0.5.11 with numpy 2.4.6.
# Guess:     documents of equal score keep the order in which they were given, or the metric says that there are ties.
# Behaviour: they are ordered by their names, the last of the alphabet first, whatever order the run has. The same
#            search over the same documents gets another nDCG when the documents are named otherwise.
# Cause:     trec_eval forgets the ranks of a run and sorts by score, then by name in descending order; scores are kept
#            as 32-bit floats, so that nearly equal ones are equal too.
# Why:       binary codes, small integers and cosines of rounded vectors have few distinct scores: the tenth place is
#            among dozens of equals. Data sets often put the relevant passages first and fill up with others, and a
#            name like "d00012" then loses each tie. Comparing precisions by this number compares names. mteb, BEIR
#            and ir_measures count with it.
# Seen:
#   float vectors:    nDCG@10 0.865 with the relevant named first, 0.865 with them named last
#   codes of 64 bits: nDCG@10 0.211 with the relevant named first, 0.313 with them named last
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pytrec-eval-terrier==0.5.11 numpy==2.4.6

cat > "$work/ties.py" <<'PY'
import sys

import numpy as np
import pytrec_eval

random = np.random.default_rng(0)
queries = random.standard_normal((100, 64)).astype(np.float32)
relevant = queries + 1.6 * random.standard_normal((100, 64)).astype(np.float32)
others = random.standard_normal((9900, 64)).astype(np.float32)
documents = np.concatenate([relevant, others])
documents /= np.linalg.norm(documents, axis=1, keepdims=True)
cosines = queries @ documents.T
equal_bits = ((queries[:, None] > 0) == (documents[None] > 0)).sum(axis=2)


def mean_ndcg(scores: np.ndarray, names: list[str]) -> float:
    run = {str(query): dict(zip(names, map(float, row))) for query, row in enumerate(scores)}
    wanted = {str(query): {names[query]: 1} for query in range(len(scores))}
    measured = pytrec_eval.RelevanceEvaluator(wanted, {"ndcg_cut_10"}).evaluate(run)
    return float(np.mean([values["ndcg_cut_10"] for values in measured.values()]))


first = [f"d{row:05}" for row in range(len(documents))]
last = first[::-1]
for label, scores in (("float vectors:", cosines), ("codes of 64 bits:", equal_bits)):
    one, other = mean_ndcg(scores, first), mean_ndcg(scores, last)
    print(f"{label:17} nDCG@10 {one:.3f} with the relevant named first, {other:.3f} with them named last")
    if label == "float vectors:" and abs(one - other) > 0.001:
        sys.exit("Scores without ties now depend on the names.")
    if label != "float vectors:" and other - one < 0.05:
        sys.exit("Ties no longer depend on the names.")
PY
"$work/venv/bin/python" "$work/ties.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
