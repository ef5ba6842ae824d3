#!/usr/bin/env bash
# Version:   rank-bm25 0.2.2; bm25s 0.3.16; haystack-ai 3.4.1; numpy 2.4.6.
# Guess:     delta of BM25+ lifts documents that have a word above those that do not, which is what BM25+ adds to BM25.
# Behaviour: rank_bm25's BM25Plus and bm25s' "bm25+" give idf times delta to each document for each word of the query,
#            whether it has the word or not. All scores grow by one number, so that no delta changes an order: BM25+ is
#            BM25 with another idf. Haystack's in-memory store gives it to documents with the word alone, as the paper
#            of Lv and Zhai does. Both follow later papers (Trotman et al., Kamphuis et al.) whose sums run over all
#            words of the query; bm25s calls that its array of what does not occur, and its documentation says that
#            BM25+ needs a delta. Nothing was found that says what this comes to.
# Why:       BM25+ is chosen for long documents, which BM25 puts behind short ones that lack a word of the query. The
#            keyword half of a hybrid search is then tuned by a number that does nothing, while its scores are all far
#            above 0: "score > 0" and weighted sums with similarities see a match in every document.
# Seen (100 queries of three words over 2000 documents of 10 to 2000 words):
#   rank_bm25: with delta 1 instead of 0   0 of 100 first tens change; lowest score 4.43
#   bm25s:     with delta 1 instead of 0   0 of 100 first tens change; lowest score 4.43
#   Haystack:  with delta 1 instead of 0 100 of 100 first tens change
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet rank-bm25==0.2.2 bm25s==0.3.16 haystack-ai==3.4.1 numpy==2.4.6

cat > "$work/delta.py" <<'PY'
import sys

import bm25s
import numpy as np
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from rank_bm25 import BM25Plus

DOCUMENTS, WORDS = 2000, 3000
random = np.random.default_rng(0)
share = 1 / np.arange(2, WORDS + 2)
share /= share.sum()
lengths = np.exp(random.uniform(np.log(10), np.log(2000), DOCUMENTS)).astype(int)
documents = [[f"w{word}" for word in random.choice(WORDS, length, p=share)] for length in lengths]
queries = [[f"w{word}" for word in random.choice(np.arange(100, 1000), 3, replace=False)] for _ in range(100)]


def by_rank_bm25(delta: float) -> np.ndarray:
    index = BM25Plus(documents, k1=1.5, b=0.75, delta=delta)
    return np.array([index.get_scores(query) for query in queries])


def by_bm25s(delta: float) -> np.ndarray:
    index = bm25s.BM25(method="bm25+", k1=1.5, b=0.75, delta=delta, dtype="float64")
    index.index(documents, show_progress=False)
    return np.array([index.get_scores(query) for query in queries])


def by_haystack(delta: float) -> np.ndarray:
    parameters = {"k1": 1.5, "b": 0.75, "delta": delta}
    store = InMemoryDocumentStore(bm25_algorithm="BM25Plus", bm25_parameters=parameters)
    store.write_documents([Document(id=str(row), content=" ".join(words)) for row, words in enumerate(documents)])
    scores = np.zeros((len(queries), DOCUMENTS))
    for row, query in enumerate(queries):
        for hit in store.bm25_retrieval(" ".join(query), top_k=DOCUMENTS):
            scores[row, int(hit.id)] = hit.score
    return scores


changed, lowest = {}, {}
for name, scored in (("rank_bm25", by_rank_bm25), ("bm25s", by_bm25s), ("Haystack", by_haystack)):
    without, with_delta = (np.round(scored(delta), 6) for delta in (0.0, 1.0))
    first = [np.argsort(-scores, axis=1, kind="stable")[:, :10] for scores in (without, with_delta)]
    changed[name], lowest[name] = int((first[0] != first[1]).any(axis=1).sum()), with_delta.min()
    end = "" if name == "Haystack" else f"; lowest score {lowest[name]:.2f}"
    print(f"{name + ':':10} with delta 1 instead of 0 {changed[name]:3} of {len(queries)} first tens change{end}")
if changed["Haystack"] < 50:
    sys.exit("Haystack's BM25+ gives delta to all documents now, too.")
if changed["rank_bm25"] or changed["bm25s"] or min(lowest["rank_bm25"], lowest["bm25s"]) < 1:
    sys.exit("delta counts for the order now.")
PY
HAYSTACK_TELEMETRY_ENABLED=False "$work/venv/bin/python" "$work/delta.py" 2>"$work/said" ||
  { tail -n 5 "$work/said" >&2; exit 1; }
