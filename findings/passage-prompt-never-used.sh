#!/usr/bin/env bash
# Version:   sentence-transformers 6.2.0 with transformers 5.24.0, torch 2.13.0 and tokenizers 0.23.3.
# Guess:     encode_document puts the model's prompt "passage" before a text where the model has no prompt "document", as
#            its documentation says: "the first available prompt from document, passage, corpus".
# Behaviour: every model has a prompt "document", an empty one unless the folder or the caller gives another. So that is
#            the first available one, and "passage" and "corpus" are never come to: documents are embedded bare. "query"
#            is used, for that is its name. Nothing is said.
# Why:       {"query": "query: ", "passage": "passage: "} is the example that the documentation of `prompts` gives, and
#            what models in the way of E5 are trained with. Their queries get the prefix that they were trained with and
#            their documents none; encode(texts, prompt_name="passage") gives others.
# Seen:
#   prompts of the model: query, document, passage
#   encode_query is encode with: query
#   encode_document is encode with: no prompt
#   encode_document with the same prompt under the name "document" is encode with: document
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 sentence-transformers==6.2.0 tokenizers==0.23.3

cat > "$work/prompts.py" <<'PY'
import sys

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["[UNK]", "query", "passage", ":", "wing", "flow"]


def model(folder: str, prompts: dict[str, str]) -> SentenceTransformer:
    """Returns a model whose vectors are averages of rows of a table, saved with these prompts and loaded again."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    table = np.random.default_rng(0).normal(size=(len(WORDS), 8)).astype(np.float32)
    made = SentenceTransformer(
        modules=[StaticEmbedding(words, embedding_weights=table)], prompts=prompts, device="cpu"
    )
    made.save(folder)
    return SentenceTransformer(folder, device="cpu")


def named(of: SentenceTransformer, vector: np.ndarray) -> str:
    """Returns the prompt that a vector of "wing flow" was made with."""
    if np.allclose(of.encode("wing flow", prompt=""), vector):
        return "no prompt"
    return next(name for name in of.prompts if np.allclose(of.encode("wing flow", prompt_name=name), vector))


work = sys.argv[1]
e5 = model(f"{work}/passage", {"query": "query: ", "passage": "passage: "})
other = model(f"{work}/document", {"query": "query: ", "document": "passage: "})
seen = [
    named(e5, e5.encode_query("wing flow")),
    named(e5, e5.encode_document("wing flow")),
    named(other, other.encode_document("wing flow")),
]
print("prompts of the model:", ", ".join(e5.prompts))
print("encode_query is encode with:", seen[0])
print("encode_document is encode with:", seen[1])
print('encode_document with the same prompt under the name "document" is encode with:', seen[2])
if seen != ["query", "no prompt", "document"]:
    sys.exit("Documents now get another prompt.")
PY
"$work/venv/bin/python" "$work/prompts.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
