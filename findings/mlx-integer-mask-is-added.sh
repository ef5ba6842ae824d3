#!/usr/bin/env bash
# Version:   mlx 0.32.4, with tokenizers 0.23.3 and numpy 2.4.6.
# Guess:     the 0/1 attention mask of a tokenizer masks in mx.fast.scaled_dot_product_attention, or is refused.
# Behaviour: only a boolean array says who is seen. An integer one counts as numbers to add to the scores: tokens get 1,
#            padding 0. So padding is seen nearly as well as the text (each at 1/e of the weight).
# Why:       attention_mask is integers in every tokenizer's output. The result is finite, of the right shape, equal to
#            the truth for a text with no padding, and off for each text that is shorter than the longest of its batch.
# Seen:
#   mask of the tokenizer: [1, 1, 0, 0, 0] mlx.core.int64
#   as integers: the shorter text differs from itself alone by 0.708239
#   as booleans: the shorter text differs from itself alone by 0.000000
#   integers, and the same numbers as floats: differ by 0.000000
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" numpy==2.4.6 tokenizers==0.23.3

cat > "$work/mask.py" <<'PY'
import sys

import mlx.core as mx
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

mx.set_default_device(mx.cpu)
mx.random.seed(0)
tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "wing": 1, "flow": 2, "air": 3}, unk_token="<pad>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer.enable_padding(pad_id=0, pad_token="<pad>")
batch = tokenizer.encode_batch(["wing flow", "air flow wing air flow"])
ids = np.array([text.ids for text in batch])
given = mx.array(np.array([text.attention_mask for text in batch]))[:, None, None, :]
states = mx.random.normal((4, 16))[mx.array(ids)][:, None]  # [batch, heads = 1, tokens, width]


def attention(x: mx.array, mask: mx.array | None) -> mx.array:
    return mx.fast.scaled_dot_product_attention(x, x, x, scale=0.25, mask=mask)


alone = attention(states[:1, :, :2], None)
print("mask of the tokenizer:", given[0, 0, 0].tolist(), given.dtype)
far = {}
for name, mask in (("as integers", given), ("as booleans", given == 1)):
    far[name] = mx.abs(attention(states, mask)[:1, :, :2] - alone).max().item()
    print(f"{name}: the shorter text differs from itself alone by {far[name]:.6f}")
added = mx.abs(attention(states, given) - attention(states, given.astype(mx.float32))).max().item()
print(f"integers, and the same numbers as floats: differ by {added:.6f}")
if far["as booleans"] > 1e-5:
    sys.exit("A boolean mask no longer hides the padding.")
if far["as integers"] < 0.01 or added > 1e-6:
    sys.exit("An integer mask is no longer added.")
PY
"$work/venv/bin/python" "$work/mask.py"
