#!/usr/bin/env bash
# Version:   ir_measures 0.4.3 with numpy 2.4.6.
# Guess:     measures of one calc_aggregate() see one order: RR@10 is at most RR, and with one relevant document a query
#            RR@1, P@1 and Success@1 are one number.
# Behaviour: RR and P come from pytrec_eval and RR@10 from a port of MS MARCO's script, which is chosen since the other
#            has no cut-off for RR. Of equal scores the one puts the greater document name first, the other the smaller.
#            Where scores are equal, RR@10 of a query is often above its RR, RR@1 is not P@1, and lists that hold fewer
#            than ten documents have two values by a cut-off that cuts nothing.
# Why:       binary and int8 codes, cosines that are rounded to two digits, and sigmoids of confident rerankers are full
#            of equal scores. The measures stand side by side in one table, and who tunes by RR@10 and reports nDCG@10
#            follows two rankings. The order by names in pytrec_eval alone is another case here.
# Seen:
#   scores of 16-bit codes: RR 0.614, RR@10 0.742; P@1 0.423, Success@1 0.423, RR@1 0.590
#      queries with RR@10 above RR: 130 of 300
#   scores of floats:       RR 0.853, RR@10 0.853; P@1 0.747, Success@1 0.747, RR@1 0.747
#      queries with RR@10 above RR: 0 of 300
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ir_measures==0.4.3 numpy==2.4.6

cat > "$work/cutoff.py" <<'PY'
import sys

import ir_measures
import numpy as np
from ir_measures import RR, P, Qrel, ScoredDoc, Success

QUERIES, SIZE = 300, 16
random = np.random.default_rng(0)
# Each query's own document is the one of its number; eight others are beside it in the list.
documents = random.standard_normal((1000, SIZE))
queries = documents[:QUERIES] + 1.5 * random.standard_normal((QUERIES, SIZE))
lists = [[query, *random.choice(np.arange(QUERIES, 1000), 8, replace=False).tolist()] for query in range(QUERIES)]
judged = [Qrel(str(query), f"d{query:04}", 1) for query in range(QUERIES)]
kinds = {
    f"scores of {SIZE}-bit codes:": np.sign(queries) @ np.sign(documents).T,
    "scores of floats:": queries @ documents.T,
}
above = {}
for kind, scores in kinds.items():
    run = [ScoredDoc(str(q), f"d{d:04}", float(scores[q, d])) for q, found in enumerate(lists) for d in found]
    mean = ir_measures.calc_aggregate([RR, RR @ 10, P @ 1, Success @ 1, RR @ 1], judged, run)
    print(f"{kind:23} " + f"RR {mean[RR]:.3f}, RR@10 {mean[RR @ 10]:.3f}; P@1 {mean[P @ 1]:.3f}, Success@1 {mean[Success @ 1]:.3f}, RR@1 {mean[RR @ 1]:.3f}")
    each = {(metric.query_id, str(metric.measure)): metric.value for metric in ir_measures.iter_calc([RR, RR @ 10], judged, run)}
    above[kind] = sum(each[str(query), "RR@10"] > each[str(query), "RR"] + 1e-6 for query in range(QUERIES))
    print(f"   queries with RR@10 above RR: {above[kind]} of {QUERIES}")
codes, floats = above.values()
if codes < QUERIES // 20:
    sys.exit("RR and RR@10 see one order of equal scores now.")
if floats:
    sys.exit("RR and RR@10 differ without equal scores.")
PY
"$work/venv/bin/python" "$work/cutoff.py"
