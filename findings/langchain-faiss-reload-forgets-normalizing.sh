#!/usr/bin/env bash
# Version:   langchain-community 0.4.2 with langchain-core 1.8.3, faiss-cpu 1.15.1 and numpy 2.4.6.
# Guess:     FAISS.load_local gives the store that save_local wrote.
# Behaviour: the folder has the index, the texts and their ids. normalize_L2 and distance_strategy are in no file, and
#            the loaded store has their defaults: it neither scales a query nor a new text to length 1, over an index
#            whose vectors are. A text that is added then stands first, by its length, whatever is asked. Both can be
#            given to load_local again, by somebody who knows.
# Why:       normalize_L2 is asked for where the model's vectors have other lengths than 1: there the loaded store takes
#            lengths for similarity, and only for what came after the first restart.
# Seen:
#   before saving: IndexFlatIP, normalize_L2 True, MAX_INNER_PRODUCT: 1.00 near, 0.30 far, 0.10 added
#   loaded again:  IndexFlatIP, normalize_L2 False, EUCLIDEAN_DISTANCE: 40.00 added, 20.00 near, 6.00 far
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet langchain-community==0.4.2 langchain-core==1.8.3 faiss-cpu==1.15.1 numpy==2.4.6

cat > "$work/reload.py" <<'PY'
import sys

from langchain_community.vectorstores import FAISS
from langchain_community.vectorstores.utils import DistanceStrategy
from langchain_core.embeddings import Embeddings

cosines = {"near": 1.0, "far": 0.3, "added": 0.1}


class Angles(Embeddings):
    """A vector of length 20 for each text, at a known cosine from the query's."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[20 * cosines[text], 20 * (1 - cosines[text] ** 2) ** 0.5] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [20.0, 0.0]


strategy = DistanceStrategy.MAX_INNER_PRODUCT
built = FAISS.from_texts(["near", "far"], Angles(), normalize_L2=True, distance_strategy=strategy)
built.save_local(sys.argv[1])
loaded = FAISS.load_local(sys.argv[1], Angles(), allow_dangerous_deserialization=True)
orders = []
for label, store in (("before saving:", built), ("loaded again: ", loaded)):
    store.add_texts(["added"])
    found = store.similarity_search_with_score("query", k=3)
    orders.append([document.page_content for document, _ in found])
    scores = ", ".join(f"{float(score):.2f} {document.page_content}" for document, score in found)
    kind, settings = type(store.index).__name__, (store._normalize_L2, store.distance_strategy.name)
    print(f"{label} {kind}, normalize_L2 {settings[0]}, {settings[1]}: {scores}")
if orders[0] != ["near", "far", "added"]:
    sys.exit("The store that was built no longer ranks by the cosine.")
if orders[1][0] != "added" or loaded._normalize_L2:
    sys.exit("The loaded store now scales vectors.")
PY
"$work/venv/bin/python" "$work/reload.py" "$work/store" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
