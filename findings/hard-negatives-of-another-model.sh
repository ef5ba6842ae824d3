#!/usr/bin/env bash
# Version:   sentence-transformers 6.2.0 with transformers 5.24.0, torch 2.13.0, tokenizers 0.23.3 and datasets 5.2.0.
# Guess:     mine_hard_negatives(..., cache_folder=...) keeps the embeddings of each model apart: the documentation says
#            that the names of the files are made of the model's name, the prompts and the texts.
# Behaviour: the model's name is the name that its card has for the model that it was trained from. A folder has none,
#            so that all models of folders share one file, and the second gets the negatives of the first. A model that
#            came from the Hub keeps the Hub's name while it is trained. The cache says nothing unless verbose is set.
# Why:       negatives are mined again with the model that was just trained, since the old ones have become easy. With
#            the cache the new round is the old one, and two checkpoints that are compared have equal negatives.
# Seen:
#   without cache_folder: the second model has 0 of the 100 negatives of the first
#   with cache_folder:    the second model has 100 of the 100 negatives of the first
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 sentence-transformers==6.2.0 \
  tokenizers==0.23.3 datasets==5.2.0

cat > "$work/cache.py" <<'PY'
import sys

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.util import mine_hard_negatives
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

words = ["[UNK]", *(f"w{number}" for number in range(200))]
tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = WhitespaceSplit()
pairs = Dataset.from_dict({"query": words[1:101], "answer": words[101:]})
for name, seed in (("first", 0), ("second", 1)):
    weights = np.random.default_rng(seed).standard_normal((len(words), 16)).astype(np.float32)
    module = StaticEmbedding(tokenizer, embedding_weights=weights)
    SentenceTransformer(modules=[module], device="cpu").save(f"{sys.argv[1]}/{name}")


def mine(name: str, cache: str | None) -> list[str]:
    model = SentenceTransformer(f"{sys.argv[1]}/{name}", device="cpu")
    return mine_hard_negatives(pairs, model, num_negatives=1, cache_folder=cache, verbose=False)["negative"][:]


def equal(cache: str | None) -> int:
    return sum(one == other for one, other in zip(mine("first", cache), mine("second", cache)))


apart, shared = equal(None), equal(f"{sys.argv[1]}/cache")
print(f"without cache_folder: the second model has {apart} of the 100 negatives of the first")
print(f"with cache_folder:    the second model has {shared} of the 100 negatives of the first")
if apart > 10:
    sys.exit("The two models find the same negatives by themselves.")
if shared < 100:
    sys.exit("The cache keeps models apart now.")
PY
export HF_HUB_OFFLINE=1
"$work/venv/bin/python" "$work/cache.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
