#!/usr/bin/env bash
# Version:   llama.cpp of October 2026 (xllamacpp 2026.10.11549) and gguf 0.19.0, beside transformers 5.24.0.
# Guess:     a GGUF file holds the vocabulary; a BERT with cased words, such as LaBSE, finds "Berlin" in it.
# Behaviour: where a file doesn't say how, text is lowered and stripped of its accents, whatever the file's words are:
#            "Berlin" becomes "berlin", "Müller" "muller", and a cased word is never found. There is a key for it
#            since 2026, tokenizer.ggml.normalizer.lowercase, and with false in it all is well. Files that were written
#            before have no such key, and the package gguf, with which they are written, has no function for it.
# Why:       the ids are valid and the vectors near enough to look right: "US" and "us", "Polish" and "polish" have one
#            vector, and an index that was filled by sentence-transformers is searched with others. Only a comparison of
#            texts with capitals shows it, and the first tests of a model rarely have any.
# Seen:
#   no key: cosine with transformers'
#      'the berlin' 1.000, 'the Berlin' 0.960, 'the Müller' 0.962, 'the US' 0.947, 'the us' 1.000
#      cosine of 'the US' and 'the us' 1.000
#   lowercase = false: cosine with transformers'
#      'the berlin' 1.000, 'the Berlin' 1.000, 'the Müller' 1.000, 'the US' 1.000, 'the us' 1.000
#      cosine of 'the US' and 'the us' 0.947
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 gguf==0.19.0 torch==2.13.0 transformers==5.24.0 \
  tokenizers==0.23.3 numpy==2.4.6

cat > "$work/cased.py" <<'PY'
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import xllamacpp
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel

LAYERS, SIZE, LENGTH = 2, 64, 64
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "Berlin", "berlin", "Müller", "muller", "US", "us"]
NAMES = {
    "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
}

torch.manual_seed(0)
config = BertConfig(
    vocab_size=len(WORDS), hidden_size=SIZE, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=128,
    max_position_embeddings=LENGTH,
)
model = BertModel(config, add_pooling_layer=False).eval()
weights = {name: value.numpy() for name, value in model.state_dict().items()}


def write(path: str, cased: bool) -> None:
    file = gguf.GGUFWriter(path, "bert")
    file.add_context_length(LENGTH)
    file.add_embedding_length(SIZE)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_block_count(LAYERS)
    file.add_head_count(config.num_attention_heads)
    file.add_layer_norm_eps(config.layer_norm_eps)
    file.add_causal_attention(False)
    file.add_pooling_type(gguf.PoolingType.MEAN)
    file.add_tokenizer_model("bert")
    file.add_token_list([word if word[0] == "[" else "\u2581" + word for word in WORDS])
    file.add_token_types([3 if word[0] == "[" else 1 for word in WORDS])
    file.add_token_type_count(2)
    for name, number in {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "sep": 3, "mask": 4}.items():
        getattr(file, f"add_{name}_token_id")(number)
    if cased:
        file.add_bool("tokenizer.ggml.normalizer.lowercase", False)
    file.add_tensor("token_embd.weight", weights["embeddings.word_embeddings.weight"])
    file.add_tensor("position_embd.weight", weights["embeddings.position_embeddings.weight"])
    file.add_tensor("token_types.weight", weights["embeddings.token_type_embeddings.weight"])
    for part in ("weight", "bias"):
        file.add_tensor(f"token_embd_norm.{part}", weights[f"embeddings.LayerNorm.{part}"])
        for layer in range(LAYERS):
            for name, other in NAMES.items():
                file.add_tensor(f"blk.{layer}.{other}.{part}", weights[f"encoder.layer.{layer}.{name}.{part}"])
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def llama(path: str, texts: list[str]) -> np.ndarray:
    settings = xllamacpp.CommonParams()
    settings.model.path = path
    settings.embedding, settings.warmup = True, False
    settings.n_ctx = settings.n_batch = settings.n_ubatch = LENGTH
    settings.n_parallel = 1
    server = xllamacpp.Server(settings)
    return np.array([server.handle_embeddings({"input": text})["data"][0]["embedding"] for text in texts])


folder = Path(sys.argv[1])
(folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=False, strip_accents=False)
texts = ["the berlin", "the Berlin", "the Müller", "the US", "the us"]
expected = []
for text in texts:
    with torch.inference_mode():
        vector = model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0].mean(dim=0).numpy()
    expected.append(vector / np.linalg.norm(vector))
found = {}
for name, cased in {"no key": False, "lowercase = false": True}.items():
    path = str(folder / f"{cased}.gguf")
    write(path, cased)
    vectors = llama(path, texts)
    found[name] = [float(left @ right) for left, right in zip(vectors, expected)]
    between = float(vectors[3] @ vectors[4])
    print(f"{name}: cosine with transformers'")
    print("  ", ", ".join(f"{text!r} {cosine:.3f}" for text, cosine in zip(texts, found[name])))
    print(f"   cosine of 'the US' and 'the us' {between:.3f}")
    if cased and (min(found[name]) < 0.999 or between > 0.99):
        sys.exit("With the key the vectors are no longer right.")
    if not cased and (max(found[name][1:4]) > 0.99 or min(found[name][::4]) < 0.999 or between < 0.999):
        sys.exit("Without the key text is no longer lowered.")
if any("lowercase" in name for name in dir(gguf.GGUFWriter)):
    sys.exit("gguf has a function for the key now.")
PY
"$work/venv/bin/python" "$work/cased.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
