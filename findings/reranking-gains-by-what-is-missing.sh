#!/usr/bin/env bash
# Version:   sentence-transformers 6.2.0 with transformers 5.24.0, torch 2.13.0, tokenizers 0.23.3 and datasets 5.2.0.
# Guess:     CrossEncoderRerankingEvaluator with always_rerank_positives=False, which the documentation calls the more
#            realistic way and the one whose maximum is not 1, counts relevant documents that the first stage has not
#            found against the score, before and after reranking alike.
# Behaviour: after reranking they are forgotten: nDCG and MAP are those of a query that has no other relevant document.
#            Before, they are put behind the list as if they had been found there. A reranker that leaves every document
#            where it was gains 0.66 of nDCG@10, and the model card says so. Only a query without any hit counts 0.
#            ReciprocalRankFusionEvaluator puts them behind each list too: a list of one hit has nDCG@10 and MAP of 1
#            with four of five relevant documents missing, and less when it goes on with nine strangers.
# Why:       the gain is what one looks at to see whether a reranker is worth its time. Of two first stages the one that
#            finds less looks better after reranking.
# Seen (one of five relevant documents is the first of the ten, which stand in the order of the reranker's own scores):
#   wanted:                         nDCG@10 0.339, MAP 0.200
#   CrossEncoder, before:           nDCG@10 0.339, MAP 0.419
#   CrossEncoder, after:            nDCG@10 1.000, MAP 1.000
#   rank fusion, list of ten:       nDCG@10 0.339, MAP 0.419
#   rank fusion, list of that one:  nDCG@10 1.000, MAP 1.000
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 sentence-transformers==6.2.0 \
  tokenizers==0.23.3 datasets==5.2.0

cat > "$work/missing.py" <<'PY'
import sys

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from sentence_transformers.sparse_encoder.evaluation import ReciprocalRankFusionEvaluator
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

folder = sys.argv[1]
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(40))]
torch.manual_seed(0)
shape = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
config = BertConfig(vocab_size=len(words), num_labels=1, initializer_range=1.0, **shape)
BertForSequenceClassification(config).save_pretrained(folder)
BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
model = CrossEncoder(folder, device="cpu")

query = "w0 w1"
documents = [f"w{number}" for number in range(2, 12)]
scores = model.predict([(query, document) for document in documents])
ranked = [documents[place] for place in np.argsort(-scores)]
positive = [ranked[0], "w20", "w21", "w22", "w23"]
wanted = 1 / sum(1 / np.log2(rank + 1) for rank in range(1, 6)), 1 / 5


def show(label: str, ndcg: float, mean: float) -> tuple[float, float]:
    print(f"{label + ':':31} nDCG@10 {ndcg:.3f}, MAP {mean:.3f}")
    return ndcg, mean


sample = {"query_id": "q", "query": query, "positive": positive}
reranked = CrossEncoderRerankingEvaluator(
    [{"query": query, "positive": positive, "documents": ranked}], always_rerank_positives=False, write_csv=False
)(model)
fused = ReciprocalRankFusionEvaluator(
    [{**sample, "documents": ranked}], [{**sample, "documents": ranked[:1]}], write_csv=False
)()
show("wanted", *wanted)
before = show("CrossEncoder, before", reranked["base_ndcg@10"], reranked["base_map"])
after = show("CrossEncoder, after", reranked["ndcg@10"], reranked["map"])
ten = show("rank fusion, list of ten", fused["dense_ndcg@10"], fused["dense_map"])
one = show("rank fusion, list of that one", fused["sparse_ndcg@10"], fused["sparse_map"])
if abs(before[0] - wanted[0]) > 0.01 or abs(ten[0] - wanted[0]) > 0.01:
    sys.exit("A list of ten no longer has the nDCG@10 that is wanted.")
if min(after) < 0.99:
    sys.exit("After reranking, documents that are missing count now.")
if min(one) < 0.99 or before[1] < 0.4 or ten[1] < 0.4:
    sys.exit("Documents that are missing are no longer put behind the list.")
PY
export HF_HUB_OFFLINE=1
"$work/venv/bin/python" "$work/missing.py" "$work/model" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
