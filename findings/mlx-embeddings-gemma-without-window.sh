#!/usr/bin/env bash
# Version:   mlx-embeddings 0.1.0 with mlx 0.32.4, mlx-lm 0.32.2, torch 2.13.0, transformers 5.24.0 and
#            sentence-transformers 6.2.0.
# Guess:     an EmbeddingGemma gets the vectors that sentence-transformers gives, for all texts that it takes.
# Behaviour: each token of each layer sees the whole text. Five layers of six have a window of 256 tokens to each side
#            ("sliding_window": 512), which mlx-embeddings leaves out: its own mask, of the padding alone, goes to all
#            layers in place of the two that it makes otherwise. Up to 257 tokens the vectors are the same to the last
#            digit, and from there on they part. (mlx-lm has to be installed beside it, which pip does not do.)
# Why:       EmbeddingGemma is made for 2048 tokens, and passages are longer than its examples' sentences. Longer texts
#            rank a little differently, and an index that was filled by one library does not fit the queries of the
#            other; no short text shows it. Nothing was found about it.
# Seen (cosine of the two libraries' vectors; weights are random, six layers of 64 numbers with the window of 512):
#    100 tokens: 1.0000
#    257 tokens: 1.0000
#    400 tokens: 0.9927
#    800 tokens: 0.9797
#   2000 tokens: 0.9309
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error

python3 -m venv "$work/venv"
case "$(uname -s)" in Darwin) mlx="mlx==0.32.4" ;; *) mlx="mlx[cpu]==0.32.4" ;; esac
"$work/venv/bin/pip" install --quiet "$mlx" mlx-embeddings==0.1.0 mlx-lm==0.32.2 torch==2.13.0 transformers==5.24.0 \
  sentence-transformers==6.2.0

cat > "$work/window.py" <<'PY'
import random
import sys

import mlx.core as mx
import numpy as np
import torch
from mlx_embeddings import load
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Gemma3TextConfig, Gemma3TextModel, PreTrainedTokenizerFast

base, folder = sys.argv[1:]
torch.manual_seed(0)
random.seed(0)
mx.set_default_device(mx.cpu)
WORDS = ["<pad>", "<unk>", *(f"w{number}" for number in range(198))]
sizes = {"vocab_size": len(WORDS), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6}
heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16}
# The rest is as in EmbeddingGemma's own config.json.
attention = {"use_bidirectional_attention": True, "sliding_window": 512, "max_position_embeddings": 2048}
config = Gemma3TextConfig(**sizes, **heads, **attention, initializer_range=0.2, pad_token_id=0)
Gemma3TextModel(config).save_pretrained(base)
words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
names = {"pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 2048}
PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(base)
plain = {"bias": False, "activation_function": torch.nn.Identity()}
modules = [Transformer(base), Pooling(64, "mean"), Dense(64, 256, **plain), Dense(256, 64, **plain), Normalize()]
reference = SentenceTransformer(modules=modules)
reference.save(folder)
model, _ = load(folder)

# A text goes through six subjects, of 20 words each.
subjects = [random.sample(WORDS[2:], 20) for _ in range(6)]
cosines = {}
for length in (100, 257, 400, 800, 2000):
    text = " ".join(random.choice(subjects[place * 6 // length]) for place in range(length))
    ids = mx.array([[WORDS.index(word) for word in text.split()]])
    found = np.array(model(ids, mx.ones(ids.shape, dtype=mx.int32)).text_embeds)[0]
    cosines[length] = float(found @ reference.encode(text))
    print(f"{length:4} tokens: {cosines[length]:.4f}")
if min(cosines[100], cosines[257]) < 0.9999:
    sys.exit("Short texts have other vectors, too.")
if cosines[2000] > 0.98:
    sys.exit("mlx-embeddings has the window now.")
PY
"$work/venv/bin/python" "$work/window.py" "$work/base" "$work/model" 2>"$work/said" ||
  { tail -n 5 "$work/said" >&2; exit 1; }
