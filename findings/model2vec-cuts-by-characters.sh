#!/usr/bin/env bash
# Version:   model2vec 0.10.0 with tokenizers 0.23.3 and numpy 2.4.6.
# Guess:     max_length (512 unless changed) counts tokens, as its documentation says: a text of fewer is whole.
# Behaviour: encode first cuts the text to max_length times the median length, in characters, of the vocabulary's
#            entries, then by tokens. A vocabulary with many single characters (one with Chinese, Japanese, Korean or
#            bytes) has a short median, so a text of long words loses its end far below 512 tokens. No warning.
# Why:       the median belongs to the vocabulary, not to the text: a multilingual model leaves out most of an English or
#            German page which an English one keeps, and what is behind the cut is not found.
# Seen:
#   300 tokens, max_length 512, median 1: 64 words count
#   the same with max_length=None: 300 count
#   the same text with a vocabulary of median 7: 300 count
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet model2vec==0.10.0 tokenizers==0.23.3 numpy==2.4.6

cat > "$work/cut.py" <<'PY'
import sys

import numpy as np
from model2vec import StaticModel
from tokenizers import Tokenizer, models, pre_tokenizers

words = [f"word{i:03}" for i in range(300)]


def counted(model: StaticModel, **settings: int | None) -> int:
    """How many of the text's words, from the first, have a part in its vector."""
    return int(np.count_nonzero(model.encode(" ".join(words), **settings)))


def static(characters: int) -> StaticModel:
    vocabulary = ["[UNK]", *words, *(chr(0x4E00 + i) for i in range(characters))]
    tokenizer = Tokenizer(models.WordLevel({entry: i for i, entry in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    table = np.zeros((len(vocabulary), len(words)), np.float32)
    table[1 : len(words) + 1] = np.eye(len(words))
    return StaticModel(table, tokenizer, normalize=False)


many, few = static(400), static(0)
tokens = len(many.tokenizer.encode(" ".join(words), add_special_tokens=False).ids)
seen, whole, other = counted(many), counted(many, max_length=None), counted(few)
print(f"{tokens} tokens, max_length {many.max_length}, median {many.median_token_length}: {seen} words count")
print(f"the same with max_length=None: {whole} count")
print(f"the same text with a vocabulary of median {few.median_token_length}: {other} count")
if whole != 300 or other != 300:
    sys.exit("Texts are now cut in other cases too.")
if seen > 100:
    sys.exit("Texts are no longer cut by the vocabulary's median length.")
PY
"$work/venv/bin/python" "$work/cut.py"
