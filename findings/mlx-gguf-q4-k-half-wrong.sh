#!/usr/bin/env bash
# Version:   mlx 0.32.4, its CPU wheel for Linux, with gguf 0.19.0 and numpy 2.4.6.
# Guess:     mx.load gives a Q4_K tensor of a GGUF file as float16, with the numbers that the format's own package reads.
# Behaviour: Q4_K has 4 bits a number, and a scale and a minimum for each group of 32. MLX reads every second group with
#            the scale and the minimum of the group before it. Q4_0 is read rightly.
# Why:       Q4_K is most of a file that is called Q4_K_M, the usual choice. Neighbouring groups are of one size, so the
#            weights look like weights and texts get plausible vectors, at several times the loss of 4 bits.
# Seen:
#   Q4_0: off the weights by 8.6 % as gguf reads it, by 8.6 % as MLX does
#   Q4_K: off the weights by 7.8 % as gguf reads it, by 39.7 % as MLX does
#   Q4_K: groups that both read alike: 100 % of the even ones, 0 % of the odd ones
#   cosine of vectors behind one Q4_K layer with those behind the weights: 0.997 by gguf, 0.927 by MLX
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" gguf==0.19.0 numpy==2.4.6

cat > "$work/q4k.py" <<'PY'
import sys

import gguf
import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Type

mx.set_default_device(mx.cpu)


def q4_k(weights: np.ndarray) -> np.ndarray:
    """Returns the rows as ggml's Q4_K blocks: 256 numbers each, in 8 groups with a scale and a minimum of 6 bits."""
    groups = weights.reshape(-1, 8, 32)
    below = np.maximum(-groups.min(axis=2), 0)
    step = (groups.max(axis=2) + below) / 15
    d, dmin = (np.float16(values.max(axis=1, keepdims=True) / 63) for values in (step, below))
    scales, mins = np.round(step / np.float32(d)).astype(np.uint8), np.round(below / np.float32(dmin)).astype(np.uint8)
    step, below = (scales * np.float32(d))[..., None], (mins * np.float32(dmin))[..., None]
    codes = np.clip(np.round((groups + below) / step), 0, 15).astype(np.uint8)
    first = [values[:, :4] | values[:, 4:] >> 4 << 6 for values in (scales, mins)]
    last = scales[:, 4:] & 15 | (mins[:, 4:] & 15) << 4
    pairs = (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(-1, 128)
    blocks = np.concatenate([d.view(np.uint8), dmin.view(np.uint8), *first, last, pairs], axis=1)
    return blocks.reshape(len(weights), -1)


random = np.random.default_rng(0)
weights, inputs = (random.standard_normal((rows, 768)).astype(np.float32) for rows in (384, 100))
data = {Type.Q4_0: gguf.quants.quantize(weights, Type.Q4_0), Type.Q4_K: q4_k(weights)}
writer = gguf.GGUFWriter(sys.argv[1], "bert")
for kind, blocks in data.items():
    writer.add_tensor(f"{kind.name}.weight", blocks, raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

loaded = mx.load(sys.argv[1])
q4_0 = [loaded[f"Q4_0.{part}"] for part in ("weight", "scales", "biases")]
by_mlx = {Type.Q4_0: mx.dequantize(*q4_0, group_size=32, bits=4), Type.Q4_K: loaded["Q4_K.weight"]}
by_mlx = {kind: np.array(values.astype(mx.float32)) for kind, values in by_mlx.items()}
by_gguf = {kind: gguf.quants.dequantize(blocks, kind) for kind, blocks in data.items()}


def error(values: np.ndarray) -> float:
    return float(np.linalg.norm(values - weights) / np.linalg.norm(weights))


def cosine(values: np.ndarray) -> float:
    true, now = (inputs @ matrix.T for matrix in (weights, values))
    return float(((true * now).sum(1) / np.linalg.norm(true, axis=1) / np.linalg.norm(now, axis=1)).mean())


for kind in data:
    ours, theirs = error(by_mlx[kind]), error(by_gguf[kind])
    print(f"{kind.name}: off the weights by {theirs:.1%} as gguf reads it, by {ours:.1%} as MLX does".replace("%", " %"))
    if theirs > 0.12:
        sys.exit("gguf no longer reads the blocks as they were written.")
    if (ours > 0.2) != (kind is Type.Q4_K):
        sys.exit(f"MLX now reads {kind.name} in another way.")
alike = (np.abs(by_mlx[Type.Q4_K] - by_gguf[Type.Q4_K]).reshape(-1, 8, 32) < 0.01).all(axis=2)
even, odd = alike[:, 0::2].mean(), alike[:, 1::2].mean()
print(f"Q4_K: groups that both read alike: {100 * even:.0f} % of the even ones, {100 * odd:.0f} % of the odd ones")
right, wrong = cosine(by_gguf[Type.Q4_K]), cosine(by_mlx[Type.Q4_K])
print(f"cosine of vectors behind one Q4_K layer with those behind the weights: {right:.3f} by gguf, {wrong:.3f} by MLX")
if even < 1 or odd > 0.1 or right < 0.99 or wrong > 0.97:
    sys.exit("Every second group of Q4_K is no longer read with the scale of the one before.")
PY
"$work/venv/bin/python" "$work/q4k.py" "$work/model.gguf"
