#!/usr/bin/env bash
# Version:   llama.cpp of October 2026 (xllamacpp 2026.10.11549) and gguf 0.19.0, beside transformers 5.24.0.
# Guess:     a server with several slots gives a text the same vector in a list of texts as alone.
# Behaviour: with a decoder that is pooled by the mean of all tokens, as jina-embeddings-v4 is, it is the mean of the
#            text's end alone. Each slot has a cache of its own; texts that are run together are cut where the shorter
#            ones end, and only a text's last piece is averaged. Pooling by the first token takes the first of that
#            piece. The last token is right, unless the decoder looks both ways: then earlier pieces do not see the
#            later ones. All of it is right with one slot, or with one cache for all (kv_unified, which is off here
#            unless it is asked for).
# Why:       the vector depends on the lengths of the texts that happen to run beside it, also those of other callers. A
#            text that is alone, or the shortest, is right, so that a check by hand finds nothing.
# Seen:
#   mean, 1 slot, a list: cosine with transformers 1.000 1.000 1.000 1.000
#   mean, 4 slots, one by one: cosine with transformers 1.000 1.000 1.000 1.000
#   mean, 4 slots, a list: cosine with transformers 1.000 0.833 0.761 0.730
#   mean, 4 slots, a list: cosine with the mean of the last 6, 4, 10, 10 tokens 1.000 1.000 1.000 1.000
#   mean, 4 slots, one cache, a list: cosine with transformers 1.000 1.000 1.000 1.000
#   first, 4 slots, a list: cosine with transformers 1.000 0.327 0.067 -0.077
#   first, 4 slots, a list: cosine with tokens 0, 6, 10, 20 1.000 1.000 1.000 1.000
#   last, 4 slots, a list: cosine with transformers 1.000 1.000 1.000 1.000
#   last, both ways, 4 slots, one by one: cosine with transformers 1.000 1.000 1.000 1.000
#   last, both ways, 4 slots, a list: cosine with transformers 1.000 0.947 0.954 0.942
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 gguf==0.19.0 torch==2.13.0 transformers==5.24.0 \
  numpy==2.4.6

cat > "$work/means.py" <<'PY'
import sys

import gguf
import numpy as np
import torch
import xllamacpp
from gguf import PoolingType
from transformers import Qwen3Config, Qwen3Model

LAYERS, SIZE, LENGTH = 2, 64, 1024
NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}

torch.manual_seed(0)
config = Qwen3Config(
    vocab_size=258, hidden_size=SIZE, num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=2,
    head_dim=16, intermediate_size=128, max_position_embeddings=LENGTH, initializer_range=0.2, rms_norm_eps=1e-6,
)
model = Qwen3Model(config).eval()
weights = {name: value.numpy() for name, value in model.state_dict().items()}
base = config.rope_parameters["rope_theta"]

printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
hidden = [byte for byte in range(256) if byte not in printed]
tokens = [chr(byte) if byte in printed else chr(256 + hidden.index(byte)) for byte in range(256)]


def write(path: str, pooling: PoolingType, causal: bool = True) -> None:
    """Writes the decoder with a tokenizer that makes one token of each byte but for "xy"."""
    file = gguf.GGUFWriter(path, "qwen3")
    file.add_context_length(LENGTH)
    file.add_embedding_length(SIZE)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_block_count(LAYERS)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_key_length(config.head_dim)
    file.add_value_length(config.head_dim)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_freq_base(base)
    file.add_pooling_type(pooling)
    file.add_causal_attention(causal)
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("gpt-2")
    file.add_token_list([*tokens, "xy", "<|end|>"])
    file.add_token_types([1] * 257 + [3])
    file.add_token_merges(["x y"])
    file.add_bos_token_id(257)
    file.add_eos_token_id(257)
    file.add_add_bos_token(False)
    file.add_add_eos_token(False)
    file.add_tensor("token_embd.weight", weights["embed_tokens.weight"])
    file.add_tensor("output_norm.weight", weights["norm.weight"])
    for layer in range(LAYERS):
        for name, other in NAMES.items():
            file.add_tensor(f"blk.{layer}.{other}.weight", weights[f"layers.{layer}.{name}.weight"])
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def server(path: str, slots: int, unified: bool = False) -> xllamacpp.Server:
    settings = xllamacpp.CommonParams()
    settings.model.path = path
    settings.embedding, settings.warmup = True, False
    settings.n_ctx, settings.n_parallel, settings.kv_unified = LENGTH, slots, unified
    return xllamacpp.Server(settings)


def embedded(running: xllamacpp.Server, given: list[str]) -> np.ndarray:
    data = running.handle_embeddings({"input": given})["data"]
    return np.array([row["embedding"] for row in sorted(data, key=lambda row: row["index"])])


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)


random = np.random.default_rng(0)
texts = ["".join(chr(97 + letter) for letter in random.integers(0, 20, size)) for size in (6, 10, 20, 30)]


def hidden_states(text: str, causal: bool) -> np.ndarray:
    ids = torch.tensor([list(text.encode())])
    mask = None if causal else {"full_attention": torch.zeros(1, 1, ids.shape[1], ids.shape[1])}
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask).last_hidden_state[0].numpy()


states = [hidden_states(text, True) for text in texts]
means, firsts, lasts = (np.stack(rows) for rows in zip(*((row.mean(0), row[0], row[-1]) for row in states)))
pieces = [6, 4, 10, 10]
ends = np.stack([rows[-size:].mean(0) for rows, size in zip(states, pieces)])
starts = np.stack([rows[-size] for rows, size in zip(states, pieces)])

path = f"{sys.argv[1]}/decoder.gguf"
shown = {}


def show(name: str, vectors: np.ndarray, other: np.ndarray, of: str = "transformers") -> None:
    shown[name, of] = cosines(vectors, other)
    print(f"{name}: cosine with {of}", " ".join(f"{value:.3f}" for value in shown[name, of]))


write(path, PoolingType.MEAN)
show("mean, 1 slot, a list", embedded(server(path, 1), texts), means)
four = server(path, 4)
show("mean, 4 slots, one by one", np.concatenate([embedded(four, [text]) for text in texts]), means)
listed = embedded(server(path, 4), texts)
show("mean, 4 slots, a list", listed, means)
show("mean, 4 slots, a list", listed, ends, "the mean of the last 6, 4, 10, 10 tokens")
show("mean, 4 slots, one cache, a list", embedded(server(path, 4, True), texts), means)
write(path, PoolingType.CLS)
listed = embedded(server(path, 4), texts)
show("first, 4 slots, a list", listed, firsts)
show("first, 4 slots, a list", listed, starts, "tokens 0, 6, 10, 20")
write(path, PoolingType.LAST)
show("last, 4 slots, a list", embedded(server(path, 4), texts), lasts)
lasts = np.stack([hidden_states(text, False)[-1] for text in texts])
write(path, PoolingType.LAST, causal=False)
four = server(path, 4)
show("last, both ways, 4 slots, one by one", np.concatenate([embedded(four, [text]) for text in texts]), lasts)
show("last, both ways, 4 slots, a list", embedded(server(path, 4), texts), lasts)

cut = ["mean, 4 slots, a list", "first, 4 slots, a list", "last, both ways, 4 slots, a list"]
for (name, of), values in shown.items():
    wrong = of == "transformers" and name in cut
    if values[0] < 0.999 or (values[1:].max() > 0.98 if wrong else values.min() < 0.999):
        sys.exit(f"Another result: {name}.")
PY
"$work/venv/bin/python" "$work/means.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
