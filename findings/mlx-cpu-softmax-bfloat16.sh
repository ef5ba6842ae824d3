#!/usr/bin/env bash
# Version:   mlx 0.32.4, its CPU wheel for Linux, with numpy 2.4.6.
# Guess:     a softmax in bfloat16 sums to 1 within bfloat16's rounding, a part in 256.
# Behaviour: on the CPU the sum is accumulated in bfloat16 as well. At 256 it stands still, since 256 + 1 rounds to 256,
#            so 512 equal logits give weights that sum to 2. float16 holds at 2048 in the same way. precise=True adds
#            in float32, and so does mx.fast.scaled_dot_product_attention.
# Why:       attention written out by hand (a bias per head, a relative position) is a softmax over the text's tokens:
#            from 257 tokens on, its output grows with the length. The vector still looks like a vector, and short
#            texts, on which such code is tested, are right.
# Seen:
#   256 logits: bfloat16 sums to 1, with precise=True to 1; float16 to 1
#   512 logits: bfloat16 sums to 2, with precise=True to 1; float16 to 1
#   2048 logits: bfloat16 sums to 8, with precise=True to 1; float16 to 1
#   4096 logits: float16 sums to 2
#   fused attention over 512 equal values of 1: 1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" numpy==2.4.6

cat > "$work/softmax.py" <<'PY'
import sys

import mlx.core as mx

mx.set_default_device(mx.cpu)


def total(width: int, dtype: mx.Dtype, precise: bool) -> float:
    weights = mx.softmax(mx.zeros((1, width), dtype), axis=-1, precise=precise)
    return weights.astype(mx.float32).sum().item()


for width in (256, 512, 2048):
    fast, precise, half = total(width, mx.bfloat16, False), total(width, mx.bfloat16, True), total(width, mx.float16, False)
    print(f"{width} logits: bfloat16 sums to {fast:g}, with precise=True to {precise:g}; float16 to {half:g}")
    if abs(precise - 1) > 0.01:
        sys.exit("precise=True no longer sums to 1.")
    if abs(fast - width / 256) > 0.01 or abs(half - 1) > 0.01:
        sys.exit("The sum is no longer accumulated in bfloat16.")
half = total(4096, mx.float16, False)
print(f"4096 logits: float16 sums to {half:g}")
if abs(half - 2) > 0.01:
    sys.exit("The sum is no longer accumulated in float16.")
values = mx.ones((1, 1, 512, 64), mx.bfloat16)
answer = mx.fast.scaled_dot_product_attention(values * 0, values, values, scale=1.0).astype(mx.float32)
print(f"fused attention over 512 equal values of 1: {answer.max().item():g}")
if abs(answer.max().item() - 1) > 0.01:
    sys.exit("The fused attention no longer sums to 1.")
PY
"$work/venv/bin/python" "$work/softmax.py"
