#!/usr/bin/env bash
# Version:   llama-index-core 0.14.25 with llama-index-vector-stores-faiss 0.7.0, faiss-cpu 1.15.1 and numpy 2.4.6.
# Guess:     a node's score over FaissVectorStore is a similarity, as over the other stores: more is nearer.
# Behaviour: it is what faiss returned. With IndexFlatL2, the index of FaissVectorStore's own example, that is the
#            squared distance. similarity_cutoff drops the nearest and keeps the farthest, and every mode of
#            QueryFusionRetriever, reciprocal ranks too, turns the order round, since it sorts by the score first. With
#            IndexFlatIP and with the default store all is right.
# Why:       plain retrieval keeps faiss's order and works. The cut-off or the second retriever that is added later
#            answers with what fits least, without a word.
# Seen:
#   SimpleVectorStore: 1.0 near, 0.8 close, 0.6 middle, 0.3 far; above 0.7: near close; fused: near close middle far
#   IndexFlatIP:       1.0 near, 0.8 close, 0.6 middle, 0.3 far; above 0.7: near close; fused: near close middle far
#   IndexFlatL2:       0.0 near, 0.4 close, 0.8 middle, 1.4 far; above 0.7: middle far; fused: far middle close near
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet llama-index-core==0.14.25 llama-index-vector-stores-faiss==0.7.0 \
  faiss-cpu==1.15.1 numpy==2.4.6

cat > "$work/scores.py" <<'PY'
import sys

import faiss
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TextNode
from llama_index.vector_stores.faiss import FaissVectorStore

cosines = {"near": 1.0, "close": 0.8, "middle": 0.6, "far": 0.3}


class Angles(BaseEmbedding):
    """A unit vector for each text, at a known cosine from the query's."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return [cosines[text], (1 - cosines[text] ** 2) ** 0.5]

    def _get_query_embedding(self, query: str) -> list[float]:
        return [1.0, 0.0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return [1.0, 0.0]


names = list(cosines)
for label, index in {
    "SimpleVectorStore": None,
    "IndexFlatIP": faiss.IndexFlatIP(2),
    "IndexFlatL2": faiss.IndexFlatL2(2),
}.items():
    store = {} if index is None else {"vector_store": FaissVectorStore(index)}
    nodes = [TextNode(id_=name, text=name) for name in names]
    storage = StorageContext.from_defaults(**store)
    retriever = VectorStoreIndex(nodes, storage_context=storage, embed_model=Angles()).as_retriever(similarity_top_k=4)
    found = retriever.retrieve("query")
    kept = [hit.text for hit in SimilarityPostprocessor(similarity_cutoff=0.7).postprocess_nodes(found)]
    orders = []
    for mode in ("reciprocal_rerank", "relative_score", "dist_based_score", "simple"):
        fusion = QueryFusionRetriever(
            [retriever], mode=mode, num_queries=1, similarity_top_k=4, llm=MockLLM(), use_async=False
        )
        orders.append([hit.text for hit in fusion.retrieve("query")])
    scores = ", ".join(f"{float(hit.score):.1f} {hit.text}" for hit in found)
    print(f"{label + ':':18} {scores}; above 0.7:", *kept, end="; fused: ")
    print(*orders[0])
    turned = index is not None and index.metric_type == faiss.METRIC_L2
    if [hit.text for hit in found] != names:
        sys.exit(f"{label} no longer finds the nearest first.")
    if kept != (["middle", "far"] if turned else ["near", "close"]):
        sys.exit(f"The cut-off over {label} keeps others now.")
    if any(order != (names[::-1] if turned else names) for order in orders):
        sys.exit(f"Fusion over {label} gives another order now.")
PY
"$work/venv/bin/python" "$work/scores.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
