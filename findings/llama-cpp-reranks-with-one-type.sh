#!/usr/bin/env bash
# Version:   llama.cpp of October 2026 (xllamacpp 2026.10.11549) and gguf 0.19.0, beside transformers 5.24.0.
# Guess:     reranking by a BERT cross-encoder gives the scores that transformers gives for the same weights and tokens.
# Behaviour: the file holds two rows of token types, one for the query and one for the document, as BERT was trained on
#            pairs, and llama.cpp adds the first row to every token. The scores are those of transformers with zeros for
#            token_type_ids, the order is another one, and nothing says so. XLM-RoBERTa has one row and loses nothing.
# Why:       the rerankers of ms-marco are BERTs, small enough to be run this way. The numbers look like any reranker's,
#            and embeddings by such a file, of one text each, agree to the last digit.
# Seen:
#   llama.cpp                  -3.93  -3.91  -3.99  -4.06  -3.74  order 4 1 0 2 3
#   transformers               -4.02  -3.56  -4.35  -3.87  -3.78  order 1 4 3 0 2
#   transformers, types of 0   -3.93  -3.92  -3.99  -4.06  -3.74  order 4 1 0 2 3
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 gguf==0.19.0 torch==2.13.0 transformers==5.24.0 \
  numpy==2.4.6

cat > "$work/pairs.py" <<'PY'
import sys

import gguf
import numpy as np
import torch
import xllamacpp
from transformers import BertConfig, BertModel

LAYERS, SIZE, LENGTH = 2, 64, 64
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "wing", "flow", "heat", "air", "plate", "steel"]
NAMES = {
    "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
}

torch.manual_seed(0)
config = BertConfig(
    vocab_size=len(WORDS), hidden_size=SIZE, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=128,
    max_position_embeddings=LENGTH, initializer_range=0.1,
)
model = BertModel(config).eval()
head = torch.randn(1, SIZE)
weights = {name: value.numpy() for name, value in model.state_dict().items()}


def write(path: str) -> None:
    file = gguf.GGUFWriter(path, "bert")
    file.add_context_length(LENGTH)
    file.add_embedding_length(SIZE)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_block_count(LAYERS)
    file.add_head_count(config.num_attention_heads)
    file.add_layer_norm_eps(config.layer_norm_eps)
    file.add_causal_attention(False)
    file.add_pooling_type(gguf.PoolingType.RANK)
    file.add_tokenizer_model("bert")
    file.add_token_list([word if word[0] == "[" else "\u2581" + word for word in WORDS])
    file.add_token_types([3 if word[0] == "[" else 1 for word in WORDS])
    file.add_token_type_count(2)
    for name, number in {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "sep": 3, "mask": 4}.items():
        getattr(file, f"add_{name}_token_id")(number)
    file.add_add_eos_token(True)
    file.add_add_sep_token(False)
    file.add_tensor("token_embd.weight", weights["embeddings.word_embeddings.weight"])
    file.add_tensor("position_embd.weight", weights["embeddings.position_embeddings.weight"])
    file.add_tensor("token_types.weight", weights["embeddings.token_type_embeddings.weight"])
    for part in ("weight", "bias"):
        file.add_tensor(f"token_embd_norm.{part}", weights[f"embeddings.LayerNorm.{part}"])
        for layer in range(LAYERS):
            for name, other in NAMES.items():
                file.add_tensor(f"blk.{layer}.{other}.{part}", weights[f"encoder.layer.{layer}.{name}.{part}"])
    file.add_tensor("cls.weight", weights["pooler.dense.weight"])
    file.add_tensor("cls.bias", weights["pooler.dense.bias"])
    file.add_tensor("cls.output.weight", head.numpy())
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def reranked(path: str, query: str, documents: list[str]) -> list[float]:
    settings = xllamacpp.CommonParams()
    settings.model.path = path
    settings.embedding, settings.warmup = True, False
    settings.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    settings.n_ctx = settings.n_batch = settings.n_ubatch = LENGTH
    settings.n_parallel = 1
    hits = xllamacpp.Server(settings).handle_rerank({"query": query, "documents": documents})["results"]
    return [hit["relevance_score"] for hit in sorted(hits, key=lambda hit: hit["index"])]


def score(query: str, document: str, types: bool) -> float:
    """The score by transformers, with token types or with zeros in their place."""
    asked, given = ([WORDS.index(word) for word in text.split()] for text in (query, document))
    ids = torch.tensor([[2, *asked, 3, *given, 3]])
    kinds = torch.tensor([[0] * (len(asked) + 2) + [int(types)] * (len(given) + 1)])
    with torch.inference_mode():
        return float(model(ids, token_type_ids=kinds).pooler_output[0] @ head[0])


def order(scores: list[float]) -> str:
    return " ".join(str(place) for place in np.argsort(scores)[::-1])


path = f"{sys.argv[1]}/pairs.gguf"
write(path)
query = "the wing flow"
documents = ["heat air", "steel plate the wing", "flow", "air the air the air", "plate heat flow wing"]
found = reranked(path, query, documents)
typed, zeros = ([score(query, document, types) for document in documents] for types in (True, False))
for name, scores in {"llama.cpp": found, "transformers": typed, "transformers, types of 0": zeros}.items():
    print(f"{name:25}", " ".join(f"{value:6.2f}" for value in scores), " order", order(scores))
if max(abs(left - right) for left, right in zip(found, typed)) < 0.05 or order(found) == order(typed):
    sys.exit("llama.cpp gives the document a type of its own now.")
if max(abs(left - right) for left, right in zip(found, zeros)) > 0.01:
    sys.exit("llama.cpp's scores are others than those of one type.")
PY
"$work/venv/bin/python" "$work/pairs.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
