#!/usr/bin/env bash
# Version:   model2vec 0.10.0, sentence-transformers 6.2.0.
# Guess:     StaticEmbedding.from_model2vec reads a model2vec folder, so the vectors are those of model2vec.
# Behaviour: model2vec leaves the unknown token out of the average; sentence-transformers looks its row up and counts it.
#            A text with a word that the vocabulary lacks gets another vector, and one of such words alone is the
#            unknown token's row instead of zeros. No warning.
# Why:       who builds an index with one library and asks with the other loses just the texts with rare words, and an
#            engine that reads such folders has to know which of the two wrote them.
# Seen:
#   'wing'     model2vec [1.0, 0.0] sentence-transformers [1.0, 0.0]
#   'wing qux' model2vec [1.0, 0.0] sentence-transformers [0.5, 2.5]
#   'qux'      model2vec [0.0, 0.0] sentence-transformers [0.0, 5.0]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "$1" >&2; exit 1; }

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet model2vec==0.10.0 sentence-transformers==6.2.0 torch==2.13.0

cat > "$work/compare.py" <<'PY'
import sys

import numpy as np
from model2vec import StaticModel
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

words = ["[PAD]", "[UNK]", "wing", "flow"]
tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
table = np.array([[0, 0], [0, 5], [1, 0], [0, 1]], dtype=np.float32)
StaticModel(table, tokenizer, normalize=False).save_pretrained(sys.argv[1])
own = StaticModel.from_pretrained(sys.argv[1])
other = SentenceTransformer(modules=[StaticEmbedding.from_model2vec(sys.argv[1])], device="cpu")
for text in ("wing", "wing qux", "qux"):
    print(f"{text!r:10}", "model2vec", own.encode(text).tolist(), "sentence-transformers", other.encode(text).tolist())
PY

seen=$("$work/venv/bin/python" "$work/compare.py" "$work/folder" 2>/dev/null) || fail "One of the libraries no longer runs."
echo "$seen"
[[ $seen == *"'wing'"*"[1.0, 0.0]"*"[1.0, 0.0]"* ]] || fail "Known words now differ too."
[[ $seen == *"'wing qux' model2vec [1.0, 0.0] sentence-transformers [0.5, 2.5]"* ]] || fail "The two now agree."
[[ $seen == *"'qux'      model2vec [0.0, 0.0] sentence-transformers [0.0, 5.0]"* ]] || fail "The two now agree."
