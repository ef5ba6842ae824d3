#!/usr/bin/env bash
# Version:   transformers 5.24.0 with torch 2.13.0.
# Guess:     "is_causal": true in the configuration of a BERT either makes its attention causal or does nothing.
# Behaviour: it does both. A text on its own, or in a batch of equal lengths, is computed causally; the same text beside
#            a longer one, where it is padded, is computed in both directions. (With no padding the default attention
#            gets no mask and asks the configuration; with padding it gets one, of both directions.)
# Why:       a text's vector depends on what it was batched with, by far more than rounding: documents embedded in
#            batches and queries embedded one by one are vectors of two different models.
# Seen:
#   alone and padded, without the key: differ by less than 1e-5
#   alone, and a causal model: differ by less than 1e-5
#   padded, and a model of both directions: differ by less than 1e-5
#   alone and padded, with is_causal: differ by 2.25
#   cosine of the text's mean vector, alone and padded: 0.87
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0

cat > "$work/direction.py" <<'PY'
import sys

import torch
from transformers import BertConfig, BertModel

TEXT, LONGER = [2, 5, 6, 7, 3], [2, 8, 9, 10, 11, 12, 3]


def model(**keys: bool) -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=32, initializer_range=0.5, **keys,
    )
    return BertModel(config).eval()


@torch.no_grad()
def states(of: BertModel, padded: bool) -> torch.Tensor:
    ids = torch.tensor([TEXT + [0, 0], LONGER] if padded else [TEXT])
    return of(ids, attention_mask=(ids != 0).long()).last_hidden_state[0, : len(TEXT)]


asked, plain, decoder = model(is_causal=True), model(), model(is_decoder=True)
alone, padded = states(asked, False), states(asked, True)
cosine = float(torch.cosine_similarity(alone.mean(0), padded.mean(0), dim=0))
far = {
    "alone and padded, without the key": (states(plain, False) - states(plain, True)).abs().max(),
    "alone, and a causal model": (alone - states(decoder, False)).abs().max(),
    "padded, and a model of both directions": (padded - states(plain, True)).abs().max(),
    "alone and padded, with is_causal": (alone - padded).abs().max(),
}
for what, value in far.items():
    print(f"{what}: differ by {'less than 1e-5' if value < 1e-5 else f'{value:.2f}'}")
print(f"cosine of the text's mean vector, alone and padded: {cosine:.2f}")
*small, large = far.values()
if max(small) > 1e-5:
    sys.exit("is_causal no longer means causal alone and both directions in a padded batch.")
if large < 0.1 or cosine > 0.99:
    sys.exit("With is_causal a text no longer depends on padding.")
PY
"$work/venv/bin/python" "$work/direction.py"
