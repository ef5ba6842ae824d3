#!/usr/bin/env bash
# Version:   transformers 5.24.0 with peft 0.21.2 and torch 2.13.0.
# Guess:     AutoModel.from_pretrained on a folder that peft saved gives the model that peft has: it does for LoRA.
# Behaviour: for DoRA it loads A and B and not the magnitudes, which it looks for under another name; it takes those of
#            the base model. The states are far from peft's, and the call succeeds. (The report of the loading names
#            the tensors as unexpected and missing, on the logger; peft's own loading is right.)
# Why:       an adapter is how large embedding models are fine-tuned and published, and sentence-transformers loads a
#            folder with an adapter by this same call. Directions are fine-tuned, sizes are not: vectors look sensible
#            and rank worse than the adapter that was evaluated.
# Seen:
#   LoRA, loaded again: peft differs by 0.00, transformers by 0.00
#   DoRA, loaded again: peft differs by 0.00, transformers by 0.63
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 peft==0.21.2

cat > "$work/adapter.py" <<'PY'
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel, BertConfig, BertModel

folder = Path(sys.argv[1])
torch.manual_seed(0)
config = BertConfig(
    vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    max_position_embeddings=32, initializer_range=0.5,
)
BertModel(config).save_pretrained(folder / "base")
ids = torch.tensor([[2, 5, 6, 7, 3]])


@torch.no_grad()
def differences(dora: bool) -> tuple[float, float]:
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], use_dora=dora)
    model = get_peft_model(BertModel.from_pretrained(folder / "base"), settings).eval()
    for name, parameter in model.named_parameters():  # as training would move them
        if "lora_B" in name:
            parameter.normal_()
        elif "magnitude" in name:
            parameter.mul_(1.5)
    saved = folder / ("dora" if dora else "lora")
    model.save_pretrained(saved)
    truth = model(ids).last_hidden_state
    peft = PeftModel.from_pretrained(BertModel.from_pretrained(folder / "base"), saved).eval()
    transformers = AutoModel.from_pretrained(saved).eval()
    near, far = ((truth - other(ids).last_hidden_state).abs().max() for other in (peft, transformers))
    return float(near), float(far)


for dora, name in ((False, "LoRA"), (True, "DoRA")):
    peft, transformers = differences(dora)
    print(f"{name}, loaded again: peft differs by {peft:.2f}, transformers by {transformers:.2f}")
    if peft > 1e-5 or (not dora and transformers > 1e-5):
        sys.exit(f"{name} is no longer loaded as it was saved, by peft or by transformers.")
    if dora and transformers < 0.1:
        sys.exit("transformers now loads the magnitudes of DoRA.")
PY
"$work/venv/bin/python" "$work/adapter.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
