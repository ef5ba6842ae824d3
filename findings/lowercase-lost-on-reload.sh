#!/usr/bin/env bash
# Version:   sentence-transformers 6.2.0 with transformers 5.24.0.
# Guess:     a model that was saved and loaded again gives the vectors that it gave before.
# Behaviour: Transformer(..., do_lower_case=True) over a cased BERT tokenizer puts a step "Lowercase" before the others.
#            save() writes that step into tokenizer.json and do_lower_case nowhere. Loading makes the normalizer anew
#            by the class BertTokenizer, without the step: the loaded model is cased.
# Why:       a model is trained or evaluated before it is saved. What is published is then another model: each word
#            with a capital becomes another token or an unknown one, and only texts with capitals show it.
# Seen:
#   before saving: [CLS] the wing [SEP]
#   saved steps:   Lowercase BertNormalizer
#   loaded again:  [CLS] [UNK] [UNK] [SEP]
#   cosine of the two vectors of the same text: 0.589
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 sentence-transformers==6.2.0 tokenizers==0.23.3

cat > "$work/reload.py" <<'PY'
import json
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizer

torch.manual_seed(0)
encoder, saved = Path(sys.argv[1], "encoder"), Path(sys.argv[1], "saved")
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "wing", "flow"]
config = BertConfig(
    vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=32, initializer_range=0.5,
)
BertModel(config).save_pretrained(encoder)
BertTokenizer(vocab={word: i for i, word in enumerate(words)}, do_lower_case=False).save_pretrained(encoder)

before = SentenceTransformer(modules=[Transformer(str(encoder), do_lower_case=True), Pooling(32)], device="cpu")
before.save(str(saved))
after = SentenceTransformer(str(saved), device="cpu")
tokens = [model.tokenizer("The WING").tokens() for model in (before, after)]
normalizer = json.loads((saved / "tokenizer.json").read_text())["normalizer"] or {}
steps = [step["type"] for step in normalizer.get("normalizers", [normalizer])]
cosine = float(before.similarity(before.encode("The WING"), after.encode("The WING")))
print("before saving:", *tokens[0])
print("saved steps:  ", *steps)
print("loaded again: ", *tokens[1])
print(f"cosine of the two vectors of the same text: {cosine:.3f}")
if tokens[0] != ["[CLS]", "the", "wing", "[SEP]"] or steps != ["Lowercase", "BertNormalizer"]:
    sys.exit("do_lower_case is no longer put before the normalizer and saved there.")
if tokens[1] != ["[CLS]", "[UNK]", "[UNK]", "[SEP]"] or cosine > 0.99:
    sys.exit("The model that is loaded again is no longer cased.")
PY
"$work/venv/bin/python" "$work/reload.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
