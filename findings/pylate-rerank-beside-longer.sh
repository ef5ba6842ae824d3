#!/usr/bin/env bash
# Version:   pylate 1.6.0 with torch 2.10.0.
# Guess:     a document's score by rank.rerank depends on the query and the document, as MaxSim does.
# Behaviour: rerank pads the candidates with zero vectors to the longest one and passes no mask, so a padded document has
#            a token of similarity 0 for every token of the query. Whatever in it was below 0 counts as 0: the shorter of
#            two documents gains, and the order of the same two turns when the longer one is cut or the lists differ.
#            colbert_scores has the argument documents_mask for this.
# Why:       reranking is the last step of late interaction, so this order is the result. Candidates differ from query to
#            query, so scores of one document can't be compared, cached or cut at a threshold; short documents that say
#            nothing of a part of the query lose least.
# Seen:
#   short beside one as short: -0.20, 0.10: the other is first
#   short beside the same one with two more tokens: 0.60, 0.10: the short one is first
#   MaxSim of each pair alone: -0.20, 0.10
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pylate==1.6.0 torch==2.10.0

cat > "$work/rerank.py" <<'PY'
import sys

import torch
from pylate import rank

query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
short = torch.tensor([[0.6, -0.8]])
other = torch.tensor([[0.7, -0.6]])
longer = torch.cat([other, torch.tensor([[-1.0, -0.6], [-0.5, -0.9]])])


def scores(*documents: torch.Tensor) -> list[float]:
    hits = rank.rerank([list(range(len(documents)))], [query], [list(documents)])[0]
    return [score for _, score in sorted((hit["id"], hit["score"]) for hit in hits)]


def first(values: list[float]) -> str:
    return "the short one is first" if values[0] > values[1] else "the other is first"


alone = [float((query @ document.T).max(dim=1).values.sum()) for document in (short, longer)]
even, uneven = scores(short, other), scores(short, longer)
print(f"short beside one as short: {even[0]:.2f}, {even[1]:.2f}: {first(even)}")
print(f"short beside the same one with two more tokens: {uneven[0]:.2f}, {uneven[1]:.2f}: {first(uneven)}")
print(f"MaxSim of each pair alone: {alone[0]:.2f}, {alone[1]:.2f}")
if abs(even[0] - alone[0]) > 1e-5:
    sys.exit("Documents of one length are no longer scored by MaxSim.")
if abs(uneven[0] - alone[0]) < 0.1 or first(even) == first(uneven):
    sys.exit("A document's score no longer depends on the documents beside it.")
PY
"$work/venv/bin/python" "$work/rerank.py"
