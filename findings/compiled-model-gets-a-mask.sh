#!/usr/bin/env bash
# Version:   transformers 5.24.0 with torch 2.13.0.
# Guess:     torch.compile changes how fast a BERT is computed, not what its attention is given.
# Behaviour: a tokenizer's mask that is 1 everywhere, as of texts of one length, is left out by the model as it is, so that
#            scaled_dot_product_attention gets none. Compiled, the same call gives every layer's attention a mask of
#            batch x 1 x length x length, all of it true. Without an attention_mask neither has one.
# Why:       PyTorch's flash attention on a GPU takes no mask: a compiled encoder loses it, and reads a mask that grows
#            with the square of the length, even where nothing is padded. What tokenizers give always has the mask.
# Seen:
#   as it is, without a mask: None
#   as it is, with a mask of ones: None
#   compiled, without a mask: None
#   compiled, with a mask of ones: (4, 1, 16, 16)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0

cat > "$work/masks.py" <<'PY'
import sys

import torch
from transformers import AttentionInterface, BertConfig, BertModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

seen = []


def watched(module, query, key, value, attention_mask, **others):
    seen.append(None if attention_mask is None else tuple(attention_mask.shape))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **others)


# The default attention, and its masks, under a name of their own: what it is given is written down.
AttentionInterface.register("watched", watched)
AttentionMaskInterface.register("watched", sdpa_mask)

config = BertConfig(
    vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
    attn_implementation="watched",
)
model = BertModel(config).eval()
ids = torch.randint(0, 50, (4, 16))
ways = {"as it is": model, "compiled": torch.compile(model, backend="eager", dynamic=False)}
found = {}
for name, way in ways.items():
    for given, masks in (("without a mask", {}), ("with a mask of ones", {"attention_mask": torch.ones_like(ids)})):
        seen.clear()
        with torch.inference_mode():
            way(input_ids=ids, **masks)
        found[f"{name}, {given}"] = seen[-1]
        print(f"  {name}, {given}: {seen[-1]}")
expected = [None, None, None, (4, 1, 16, 16)]
sys.exit(list(found.values()) != expected)
PY
"$work/venv/bin/python" "$work/masks.py"
