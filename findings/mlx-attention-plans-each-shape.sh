#!/usr/bin/env bash
# Version:   mlx 0.32.4 with mlx-cuda-13, on an NVIDIA GPU for which MLX takes cuDNN's attention (seen on an H200).
# Guess:     mx.fast.scaled_dot_product_attention takes about as long for 101 tokens as for 100.
# Behaviour: for each new pair of number of texts and length the host has cuDNN make a plan, which takes some 40 ms; then
#            the GPU's work takes 0.1. Nothing of a plan for 100 tokens is used for 101, or for one text more.
# Why:       texts have hundreds of lengths. Whoever pads each batch to its longest text, as libraries of embeddings do,
#            waits longer for plans than for vectors, and a benchmark that repeats one shape never shows it.
# Run:       as it is, on Linux with a driver for CUDA 13; bash, python3 and nvidia-smi are needed. It downloads CUDA's
#            libraries, which are large.
# Seen:      the Python part's steps, run by themselves on one NVIDIA H200; this script as a whole was not run there.
#            Texts x length, milliseconds of the first call and of the two after it:
#   1 x 100: 41.8 ms, then 0.43 and 0.15
#   1 x 101: 40.6 ms, then 0.19 and 0.10
#   1 x 200: 40.4 ms, then 0.16 and 0.27
#   2 x 200: 39.5 ms, then 0.16 and 0.68
#   8 x 777: 40.3 ms, then 0.21 and 0.16
#   9 x 777: 39.2 ms, then 0.21 and 0.17
#   1 x 100: 0.1 ms, then 0.08 and 0.08
set -euo pipefail
if ! nvidia-smi --list-gpus 2>/dev/null | grep -q "^GPU"; then echo "skipped: needs an NVIDIA GPU"; exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cuda13]==0.32.4"

cat > "$work/plans.py" <<'PY'
import sys
import time

import mlx.core as mx


def milliseconds(texts: int, length: int) -> list[float]:
    q = mx.random.normal((texts, 12, length, 64)).astype(mx.float16)
    mx.eval(q)
    took = []
    for _ in range(3):
        mx.synchronize()
        start = time.perf_counter()
        mx.eval(mx.fast.scaled_dot_product_attention(q, q, q, scale=0.125))
        mx.synchronize()
        took.append((time.perf_counter() - start) * 1e3)
    return took


milliseconds(1, 64)  # which loads the library
shapes = [(1, 100), (1, 101), (1, 200), (2, 200), (8, 777), (9, 777), (1, 100)]
slow = []
for texts, length in shapes:
    first, second, third = milliseconds(texts, length)
    slow.append(first > 20 * min(second, third))
    print(f"{texts} x {length}: {first:.1f} ms, then {second:.2f} and {third:.2f}", flush=True)
if slow != [True] * 6 + [False]:
    sys.exit("New shapes are no slower than old ones, or an old one is.")
PY
"$work/venv/bin/python" "$work/plans.py"
