#!/usr/bin/env bash
# Version:   lancedb 0.40.0 with pyarrow 26.0.1; ranx 0.3.21 with numba 0.68.1; numpy 2.4.6.
# Guess:     in a weighted hybrid search the one row that has a rare keyword gains by it.
# Behaviour: LanceDB's LinearCombinationReranker and ranx's fuse (whose default norm is "min-max") scale the keyword
#            scores of a query to 0..1 by their least and greatest. A single hit is both, and becomes 0: the same as a
#            row without the word. Whatever the weight, the row stays where its vector alone puts it. When a second,
#            worse row has the word too, the first gets the full weight. The worst of several hits is 0 as well.
# Cause:     LanceDB subtracts the minimum where the range is 0; ranx divides the same 0 by 1e-9.
# Why:       an error number, a part number or a name that only one document has is what the keyword half is there for.
# Seen:
#   lancedb, half weight, the word in one row:  place 6 of 10, score 0.17
#   lancedb, half weight, the word in two rows: place 1 of 10, score 0.67
#   ranx, the word in one document:  d1 1.00 d2 0.89 d3 0.11 d4 0.00
#   ranx, the word in two documents: d3 1.11 d1 1.00 d2 0.89 d4 0.00
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet lancedb==0.40.0 pyarrow==26.0.1 ranx==0.3.21 numba==0.68.1 numpy==2.4.6

cat > "$work/hybrid.py" <<'PY'
import sys

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import FTS
from lancedb.rerankers import LinearCombinationReranker
from ranx import Run, fuse

random = np.random.default_rng(0)
vectors = random.standard_normal((60, 16)).astype(np.float32)
query = random.standard_normal(16).astype(np.float32)
nearest = np.argsort(((vectors - query) ** 2).sum(1))
sixth, far = int(nearest[5]), int(nearest[40])
database = lancedb.connect(sys.argv[1])


def place(texts: list[str]) -> tuple[int, float]:
    """The place and the score, from a weight of one half, of the row whose vector is the sixth nearest."""
    vector = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 16)
    table = database.create_table(
        "rows", pa.table({"id": pa.array(range(60)), "text": texts, "vector": vector}), mode="overwrite"
    )
    table.create_index("text", config=FTS())
    search = table.search(query_type="hybrid").vector(query).text("E4711").limit(10)
    hits = search.rerank(reranker=LinearCombinationReranker(weight=0.5)).to_list()
    at = [hit["id"] for hit in hits].index(sixth)
    return at + 1, hits[at]["_relevance_score"]


texts = [f"page {row} about the pump" for row in range(60)]
texts[sixth] = "error E4711 means that the pump is dry"
lone, lone_score = place(texts)
print(f"lancedb, half weight, the word in one row:  place {lone} of 10, score {lone_score:.2f}")
texts[far] = "all numbers, E4710 and E4711 and E4712, whom to call, where the pump is mended and who made it and when"
two, two_score = place(texts)
print(f"lancedb, half weight, the word in two rows: place {two} of 10, score {two_score:.2f}")

by_vector = Run({"q": {"d1": 0.9, "d2": 0.8, "d3": 0.1, "d4": 0.0}})
tops = []
for label, by_word in (("one document: ", {"d3": 12.0}), ("two documents:", {"d3": 12.0, "d4": 3.0})):
    fused = fuse([by_vector, Run({"q": by_word})], method="sum").to_dict()["q"]
    ranked = sorted(fused.items(), key=lambda item: -item[1])
    tops.append(ranked[0][0])
    print(f"ranx, the word in {label}", *(f"{name} {score:.2f}" for name, score in ranked))
if (lone, two) != (6, 1) or two_score - lone_score < 0.4:
    sys.exit("LanceDB now counts the only row that has the word.")
if tops != ["d1", "d3"]:
    sys.exit("ranx now counts the only document that has the word.")
PY
"$work/venv/bin/python" "$work/hybrid.py" "$work/database" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
