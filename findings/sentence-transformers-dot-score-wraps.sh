#!/usr/bin/env bash
# Version:   sentence-transformers 6.2.0 with torch 2.13.0, transformers 5.24.0 and numpy 2.4.6.
# Guess:     the int8 vectors of encode(precision="int8") or quantize_embeddings can be compared by the model's own
#            similarity() and by semantic_search; where they can't, as by the cosine, an error says so.
# Behaviour: a model whose similarity is "dot", semantic_search(score_function=dot_score) and the functions for pairs
#            compute in 8 bits, and all that is more wraps around: each of the scores of similarity() lies between -128 and
#            127, and of the ten nearest rows next to none is found. The cosine and the matrices of Euclidean and Manhattan
#            similarities fail with an error instead; maxsim, for vectors of tokens, widens the codes and is right.
# Why:       a search gives ten hits with falling scores that are drawn by chance. "dot" is the usual choice for vectors of
#            length 1, and those are the ones that are stored as int8. The EmbeddingSimilarityEvaluator turns codes into
#            floats before it calls these functions, and says why in a comment; a caller is told nothing. That the cosine
#            fails is issue 3121; nothing was found about sums that wrap around.
# Seen:
#   int8 codes, summed in 64 bits:      scores -83939 to 87016, 9.7 of the ten nearest in float32
#   model.similarity of int8:           scores -128 to 127, 0.1 of the ten nearest
#   semantic_search of int8:            scores 123 to 127, 0.1 of the ten nearest
#   semantic_search of them in float32: scores 50899 to 87016, 10.0 of the ten nearest
#   pairwise_dot_score of int8:         1 of 50 pairs as in float32; 0 nan
#   pairwise_manhattan_sim of int8:     36 of 50 pairs as in float32; 0 nan
#   pairwise_euclidean_sim of int8:     0 of 50 pairs as in float32; 33 nan
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet sentence-transformers==6.2.0 torch==2.13.0 transformers==5.24.0 numpy==2.4.6

cat > "$work/dot.py" <<'PY'
import sys

import numpy as np
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

random = np.random.default_rng(0)
tokenizer = Tokenizer(WordLevel({f"w{number}": number for number in range(200)}, unk_token="w0"))
tokenizer.pre_tokenizer = Whitespace()
topics = random.standard_normal((16, 128))
weights = (random.standard_normal((200, 16)) @ topics).astype(np.float32)
modules = [StaticEmbedding(tokenizer, embedding_weights=weights), Normalize()]
model = SentenceTransformer(modules=modules, similarity_fn_name="dot", device="cpu")
texts = [" ".join(f"w{number}" for number in random.integers(0, 200, 6)) for _ in range(1000)]
ranges = np.array([[-0.4], [0.4]]) * np.ones(128)
vectors = model.encode(texts)
codes = util.quantize_embeddings(vectors, "int8", ranges=ranges)
queries, rows = codes[:50], codes[50:]
right = queries.astype(int) @ rows.astype(int).T
nearest = [{*order} for order in right.argsort(axis=1)[:, -10:].tolist()]
exact = vectors[:50] @ vectors[50:].T
kept = np.mean([len(one & {*other}) for one, other in zip(nearest, exact.argsort(axis=1)[:, -10:].tolist(), strict=True)])
print(f"int8 codes, summed in 64 bits:      scores {right.min()} to {right.max()}, {kept:.1f} of the ten nearest in float32")


def top(scores: np.ndarray) -> list[list[int]]:
    return scores.argsort(axis=1, kind="stable")[:, -10:].tolist()


def search(some: np.ndarray, others: np.ndarray) -> tuple[list[list[int]], list[float]]:
    hits = util.semantic_search(some, others, top_k=10, score_function=util.dot_score)
    return [[hit["corpus_id"] for hit in each] for each in hits], [hit["score"] for each in hits for hit in each]


scores = model.similarity(queries, rows).numpy()
found, values = search(queries, rows)
wide, wide_values = search(queries.astype(np.float32), rows.astype(np.float32))
found_by = {
    "model.similarity of int8:": (top(scores), scores.ravel().tolist()),
    "semantic_search of int8:": (found, values),
    "semantic_search of them in float32:": (wide, wide_values),
}
share = {}
for name, (hits, values) in found_by.items():
    share[name] = np.mean([len({*one} & best) for one, best in zip(hits, nearest, strict=True)])
    print(f"{name:35} scores {min(values):.0f} to {max(values):.0f}, {share[name]:.1f} of the ten nearest")
right_pairs = 0
for function in (util.pairwise_dot_score, util.pairwise_manhattan_sim, util.pairwise_euclidean_sim):
    narrow = function(queries, rows[:50])
    wide_pairs = function(queries.astype(np.float32), rows[:50].astype(np.float32))
    same = int(((narrow - wide_pairs).abs() < 1).sum())
    right_pairs = max(right_pairs, same)
    print(f"{function.__name__ + ' of int8:':35} {same} of 50 pairs as in float32; {int(narrow.isnan().sum())} nan")
if kept < 8 or share["semantic_search of them in float32:"] < 9.9:
    sys.exit("The codes themselves, or the search over floats, are no longer right.")
if scores.dtype != np.int8 or max(share["model.similarity of int8:"], share["semantic_search of int8:"]) > 3:
    sys.exit("The sums of int8 no longer wrap around.")
if right_pairs > 45:
    sys.exit("The pairs are right now.")
PY
"$work/venv/bin/python" "$work/dot.py"
