#!/usr/bin/env bash
# Version:   peft 0.21.2 with torch 2.13.0 and transformers 5.24.0.
# Guess:     add_weighted_adapter gives the weighted sum of adapters: of one adapter with a weight of 1 a copy, and of
#            two by "cat", which its documentation calls precise, what both do when they are active together.
# Behaviour: so it is for plain LoRA, also where some layers have another rank or alpha. With use_rslora the new adapter
#            is too large by the root of its rank, DoRA's magnitudes are those of an untrained adapter, and the biases
#            of lora_bias are zeros. No error or warning comes. (Reported as peft's issue 3761.)
# Why:       adapters for retrieval, similarity and languages are mixed like this. A copy of a use_rslora adapter is
#            farther from the adapter than the model without any; merge_and_unload, beside it, is right for all of them.
# Seen:
#   plain       cosine with the adapter, without it 0.984, as a copy 1.000, merged 1.000; with both, as their sum 1.000
#   patterns    cosine with the adapter, without it 0.926, as a copy 1.000, merged 1.000; with both, as their sum 1.000
#   use_rslora  cosine with the adapter, without it 0.889, as a copy 0.770, merged 1.000; with both, as their sum 0.604
#   use_dora    cosine with the adapter, without it 0.972, as a copy 0.989, merged 1.000; with both, as their sum 0.967
#   lora_bias   cosine with the adapter, without it 0.976, as a copy 0.995, merged 1.000; with both, as their sum 0.991
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet peft==0.21.2 torch==2.13.0 transformers==5.24.0 numpy==2.4.6

cat > "$work/combine.py" <<'PY'
import copy
import logging
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import BertConfig, BertModel

logging.disable()
warnings.simplefilter("error", UserWarning)
torch.set_grad_enabled(False)
config = BertConfig(
    vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
    initializer_range=0.2,
)
torch.manual_seed(0)
ids = torch.randint(5, 100, (20, 9))


def vectors(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=ids).last_hidden_state.mean(1)


def trained(model: PeftModel, name: str) -> None:
    """Draws the adapter's weights, as training would have changed them."""
    for key, weight in model.named_parameters():
        if f".{name}." in key and "magnitude" not in key:
            weight.normal_(0, 0.1)
        elif f".{name}." in key:
            weight.mul_(1 + 0.3 * torch.rand_like(weight))


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(first, second).mean())


cases = {
    "plain": {},
    "patterns": {"rank_pattern": {"value": 4}, "alpha_pattern": {"query": 32}},
    "use_rslora": {"use_rslora": True},
    "use_dora": {"use_dora": True},
    "lora_bias": {"lora_bias": True},
}
for name, options in cases.items():
    torch.manual_seed(1)
    settings = LoraConfig(r=8, lora_alpha=8, target_modules=["query", "value"], **options)
    model = get_peft_model(BertModel(config), settings, adapter_name="first").eval()
    model.add_adapter("second", copy.deepcopy(settings))
    for adapter in ("first", "second"):
        trained(model, adapter)
    model.set_adapter("first")
    one = vectors(model)
    with model.disable_adapter():
        effect = cosine(one, vectors(model))
    model.base_model.set_adapter(["first", "second"])
    both = vectors(model)
    model.add_weighted_adapter(["first"], [1.0], "copy")
    model.add_weighted_adapter(["first", "second"], [1.0, 1.0], "sum", combination_type="cat")
    model.set_adapter("copy")
    copied = cosine(vectors(model), one)
    model.set_adapter("sum")
    summed = cosine(vectors(model), both)
    model.set_adapter("first")
    merged = cosine(vectors(model.merge_and_unload()), one)
    line = f"{name:11} cosine with the adapter, without it {effect:.3f}, as a copy {copied:.3f}, merged {merged:.3f}"
    print(f"{line}; with both, as their sum {summed:.3f}")
    right = name in ("plain", "patterns")
    if merged < 0.9999 or right != (copied > 0.9999) or right != (summed > 0.9999):
        sys.exit(f"{name} is now combined in another way.")
PY
"$work/venv/bin/python" "$work/combine.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
