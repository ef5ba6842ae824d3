#!/usr/bin/env bash
# Version:   llama-index-vector-stores-lancedb 0.6.0 with llama-index-core 0.14.25, lancedb 0.40.0, numpy 2.4.6 and
#            pandas 3.1.1.
# Guess:     the similarities of LanceDBVectorStore with query_type "hybrid" or "fts" come from LanceDB's scores, as
#            those of query_type "vector" come from its distances.
# Behaviour: they are the place in the list: 1 for the first hit, 0 for the last, equal steps between. The store looks
#            for a column "score", which LanceDB calls _score or _relevance_score, and falls back to a straight line.
#            The best of four strangers has a similarity of 1; of two texts that match equally well one has 1 and one 0;
#            the same text has another similarity when another number of hits is asked for.
# Why:       SimilarityPostprocessor(similarity_cutoff=...) is what drops strangers. Here it keeps the same share of the
#            hits for every query, and a text that is the whole of the answer goes when it comes last of two.
# Seen (ten texts; "river" stands in two of them, "sword" in none):
#   vector, river: lake 0.56, ship 0.56, apple 0.14, bread 0.14; kept by a cutoff of 0.4: 2
#   vector, sword: apple 0.18, bread 0.18, chair 0.18, cloud 0.18; kept by a cutoff of 0.4: 0
#   fts, river:    lake 1.00, ship 0.00; kept by a cutoff of 0.4: 1
#   hybrid, river: lake 1.00, ship 0.67, apple 0.33, bread 0.00; kept by a cutoff of 0.4: 2
#   hybrid, sword: apple 1.00, bread 0.67, chair 0.33, cloud 0.00; kept by a cutoff of 0.4: 2
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet llama-index-vector-stores-lancedb==0.6.0 llama-index-core==0.14.25 \
  lancedb==0.40.0 numpy==2.4.6 pandas==3.1.1

cat > "$work/rank.py" <<'PY'
import sys

import numpy as np
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.vector_stores.lancedb import LanceDBVectorStore

names = ["apple", "bread", "chair", "cloud", "lake", "moon", "paper", "ship", "stone", "train"]
texts = [f"{name} beside a river" if name in ("lake", "ship") else f"{name} beside a house" for name in names]
vectors = np.eye(11)[:10]
queries = {"river": (vectors[4] + vectors[7]) / np.sqrt(2), "sword": 0.85 * np.eye(11)[10]}


def measure(kind: str, word: str, store: LanceDBVectorStore) -> tuple[list[str], list[float], int]:
    query = VectorStoreQuery(query_str=word, query_embedding=queries[word].tolist(), similarity_top_k=4)
    found = store.query(query)
    hits = sorted(zip(found.similarities, found.ids), key=lambda hit: (-round(hit[0], 4), hit[1]))
    scored = [NodeWithScore(node=node, score=score) for node, score in zip(found.nodes, found.similarities)]
    kept = len(SimilarityPostprocessor(similarity_cutoff=0.4).postprocess_nodes(scored))
    shown = ", ".join(f"{name} {similarity:.2f}" for similarity, name in hits)
    print(f"{f'{kind}, {word}:':14} {shown}; kept by a cutoff of 0.4: {kept}")
    return [name for _, name in hits], [similarity for similarity, _ in hits], kept


found = {}
for kind, words in (("vector", ("river", "sword")), ("fts", ("river",)), ("hybrid", ("river", "sword"))):
    store = LanceDBVectorStore(uri=f"{sys.argv[1]}/{kind}", query_type=kind)
    rows = zip(names, texts, vectors.tolist())
    store.add([TextNode(id_=name, text=text, embedding=vector) for name, text, vector in rows])
    for word in words:
        found[kind, word] = measure(kind, word, store)
if found["vector", "river"][2] != 2 or found["vector", "sword"][2] != 0:
    sys.exit("By vectors a cutoff no longer keeps the two texts and drops strangers.")
if not {"lake", "ship"} == {*found["fts", "river"][0]} == {*found["hybrid", "river"][0][:2]}:
    sys.exit("The words' search no longer finds the two texts first.")
for kind, word in (("fts", "river"), ("hybrid", "river"), ("hybrid", "sword")):
    similarities = found[kind, word][1]
    if not np.allclose(similarities, np.linspace(1, 0, len(similarities))):
        sys.exit("Similarities are no longer the places in the list.")
PY
"$work/venv/bin/python" "$work/rank.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
