#!/usr/bin/env bash
# Version:   sentence-transformers 6.2.0 with transformers 5.24.0.
# Guess:     encode("wing flow") embeds the tokens of "wing flow", with the tokenizer's special tokens around them.
# Behaviour: where the folder is a plain language model (no modules.json) and its tokenizer has a chat template, each
#            text is made the message of a user, put into the template, and that is embedded. Nothing says so: neither
#            the call nor a warning. Take the template out of the folder, and the vectors are others.
# Why:       a chat template rides along in most decoders' tokenizers, where it does nothing for plain text. Here it
#            decides each vector, together with the last token that is pooled, which is now the template's. Whoever
#            computes the same model by transformers, or adds a template to a published folder, leaves the index.
# Seen:
#   without a chat template: wing flow
#   with one:                <user> wing flow <end>
#   cosine of the two vectors of the same text: -0.31
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 sentence-transformers==6.2.0 tokenizers==0.23.3

cat > "$work/chat.py" <<'PY'
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

TEMPLATE = "{% for message in messages %}<user> {{ message['content'] }} <end>{% endfor %}"

torch.manual_seed(0)
folder = Path(sys.argv[1], "decoder")
words = ["<pad>", "<unk>", "<user>", "<end>", "wing", "flow"]
split = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=split, pad_token="<pad>", unk_token="<unk>", eos_token="<end>", padding_side="left"
)
config = Qwen3Config(
    vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
    head_dim=16, intermediate_size=64, max_position_embeddings=64,
)
Qwen3ForCausalLM(config).save_pretrained(folder)


def embed() -> tuple[list[str], torch.Tensor]:
    tokenizer.save_pretrained(folder)
    model = SentenceTransformer(str(folder), device="cpu")
    ids = model.preprocess(["wing flow"])["input_ids"][0]
    return [words[i] for i in ids], model.encode("wing flow", convert_to_tensor=True)


plain, vector = embed()
tokenizer.chat_template = TEMPLATE
around, other = embed()
cosine = float(torch.cosine_similarity(vector, other, dim=0))
print("without a chat template:", *plain)
print("with one:               ", *around)
print(f"cosine of the two vectors of the same text: {cosine:.2f}")
if plain != ["wing", "flow"] or around != ["<user>", "wing", "flow", "<end>"] or cosine > 0.99:
    sys.exit("Texts are no longer put into the chat template.")
PY
"$work/venv/bin/python" "$work/chat.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
if grep -i template "$work/said" >&2; then echo "sentence-transformers now says so." >&2; exit 1; fi
