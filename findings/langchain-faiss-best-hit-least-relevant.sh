#!/usr/bin/env bash
# Version:   langchain-community 0.4.2 with langchain-core 1.8.3, faiss-cpu 1.15.1 and numpy 2.4.6.
# Guess:     similarity_search_with_relevance_scores gives a score "in the range [0, 1], 0 is dissimilar, 1 is most
#            similar", and a retriever with score_threshold keeps the most similar.
# Behaviour: over FAISS with MAX_INNER_PRODUCT the score of a hit is 1 - its inner product (and minus the inner product
#            where that is below zero): it falls as the similarity grows. A threshold drops the best hits and keeps the
#            worst; the document that is the query itself scores 0. With COSINE, which builds an index by L2, the score
#            is 1 - the squared distance, so 2 * cosine - 1, and any hit below cosine 0.5 is negative. Only the default,
#            also by the squared distance (1 - d / sqrt(2)), and of its own scale, keeps the order.
# Cause:     langchain-core's functions take a distance; FAISS gives an inner product to the one, and a squared
#            Euclidean distance to the others.
# Why:       the inner product over unit vectors is what embedding models recommend, and score_threshold is the way to
#            leave out what does not fit: it answers with what fits least, without a word.
# Seen:
#   cosines of the hits           1.000 0.800 0.600 0.300
#   EUCLIDEAN_DISTANCE  scores    1.000 0.717 0.434 0.010, above 0.5: near close
#   COSINE              scores    1.000 0.600 0.200 -0.400, above 0.5: near close
#   MAX_INNER_PRODUCT   scores    0.000 0.200 0.400 0.700, above 0.5: far
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet langchain-community==0.4.2 langchain-core==1.8.3 faiss-cpu==1.15.1 numpy==2.4.6

cat > "$work/relevance.py" <<'PY'
import sys

from langchain_community.vectorstores import FAISS
from langchain_community.vectorstores.utils import DistanceStrategy
from langchain_core.embeddings import Embeddings

cosines = {"near": 1.0, "close": 0.8, "middle": 0.6, "far": 0.3}


class Angles(Embeddings):
    """A unit vector for each text, at a known cosine from the query's."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[cosines[text], (1 - cosines[text] ** 2) ** 0.5] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0, 0.0]


print("cosines of the hits          ", *(f"{cosine:.3f}" for cosine in cosines.values()))
for name in ("EUCLIDEAN_DISTANCE", "COSINE", "MAX_INNER_PRODUCT"):
    store = FAISS.from_texts(list(cosines), Angles(), distance_strategy=DistanceStrategy[name])
    found = store.similarity_search_with_relevance_scores("query", k=4)
    scores = [float(score) for _, score in found]
    retriever = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.5})
    kept = [document.page_content for document in retriever.invoke("query")]
    print(f"{name:19} scores   ", " ".join(f"{score:.3f}" for score in scores) + ", above 0.5:", *kept)
    if [document.page_content for document, _ in found] != list(cosines):
        sys.exit(f"{name} no longer finds the documents by their cosine.")
    expected = {
        "EUCLIDEAN_DISTANCE": [1 - 2**0.5 * (1 - cosine) for cosine in cosines.values()],
        "COSINE": [2 * cosine - 1 for cosine in cosines.values()],
        "MAX_INNER_PRODUCT": [1 - cosine for cosine in cosines.values()],
    }[name]
    if max(abs(score - other) for score, other in zip(scores, expected)) > 1e-3:
        sys.exit(f"The scores of {name} are others now.")
    if kept != (["far"] if name == "MAX_INNER_PRODUCT" else ["near", "close"]):
        sys.exit(f"A threshold with {name} keeps others now.")
PY
"$work/venv/bin/python" "$work/relevance.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
