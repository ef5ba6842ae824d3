#!/usr/bin/env bash
# Version:   langchain-qdrant 1.1.0 with langchain-core 1.8.3, qdrant-client 1.20.0 and numpy 2.4.6.
# Guess:     lambda_mult means the same in every vector store of LangChain: 1 for the nearest texts as they come, 0 for the
#            most different ones.
# Behaviour: QdrantVectorStore hands lambda_mult on as Qdrant's "diversity", which is 1 minus it: with 1 the texts are as
#            different as can be and most have little to do with the query, with 0 they are the nearest. The store of
#            langchain-core does it as documented. At the default of 0.5 both mean the same, so that the
#            turn shows only when somebody tunes it.
# Why:       who lets lambda_mult grow to 0.9 to get rid of far-fetched passages gets more of them, and no error.
# Seen:
#   lambda_mult 1.0: in memory 10.0 of the ten nearest, Qdrant 1.0
#   lambda_mult 0.9: in memory 9.3 of the ten nearest, Qdrant 1.2
#   lambda_mult 0.5: in memory 5.2 of the ten nearest, Qdrant 5.2
#   lambda_mult 0.0: in memory 1.0 of the ten nearest, Qdrant 10.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet langchain-qdrant==1.1.0 langchain-core==1.8.3 qdrant-client==1.20.0 numpy==2.4.6

cat > "$work/diversity.py" <<'PY'
import sys

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qdrant import QdrantVectorStore

random = np.random.default_rng(0)
names = [f"passage {row}" for row in range(200)] + [f"query {row}" for row in range(30)]
vectors = random.standard_normal((230, 16))
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
of_text = {"dummy_text": vectors[0].tolist(), **dict(zip(names, vectors.tolist()))}


class Known(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [of_text[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


stores = [
    InMemoryVectorStore.from_texts(names[:200], Known()),
    QdrantVectorStore.from_texts(names[:200], Known(), location=":memory:"),
]
measured = {}
for weight in (1.0, 0.9, 0.5, 0.0):
    shared = []
    for store in stores:
        counts = []
        for query in names[200:]:
            nearest = {text.page_content for text in store.similarity_search(query, k=10)}
            found = store.max_marginal_relevance_search(query, k=10, fetch_k=100, lambda_mult=weight)
            counts.append(len(nearest & {text.page_content for text in found}))
        shared.append(float(np.mean(counts)))
    print(f"lambda_mult {weight}: in memory {shared[0]:.1f} of the ten nearest, Qdrant {shared[1]:.1f}")
    measured[weight] = shared
if measured[1.0][0] != 10 or measured[0.0][0] > 5:
    sys.exit("langchain-core's own store no longer does as documented.")
if measured[0.0][1] != 10 or measured[1.0][1] > 5:
    sys.exit("Qdrant's store now reads lambda_mult as the others do.")
PY
"$work/venv/bin/python" "$work/diversity.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
