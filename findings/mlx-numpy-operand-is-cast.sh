#!/usr/bin/env bash
# Version:   mlx 0.32.4, its CPU wheel for Linux, with numpy 2.4.6.
# Guess:     int8 codes times a NumPy array of float32 scales are float32, as they are with two MLX arrays, with two
#            NumPy arrays, and with the factors in the other order.
# Behaviour: a NumPy array or scalar on the right of an MLX array (or an argument beside one, in mx.multiply or mx.where)
#            is first cast to the MLX array's type. Scales below 1 become 0, and so does every product; comparisons cast
#            as well, so that 60 is at least 60.5. A number of Python is not cut like this, nor is np.float64(0.5),
#            which is one, but np.float32(0.5) is.
# Why:       scales, idf weights and thresholds come from NumPy, codes and masks are integers, and they meet in one line.
#            Nothing warns, the shape is right, and the same line works after the factors are swapped.
# Seen:
#   codes * scales: [0, 0, 0, 0] mlx.core.int8
#   scales * codes: [-0.5, 0.3, 0.8, 1.2] float32
#   codes * mx.array(scales): [-0.5, 0.3, 0.8, 1.2] mlx.core.float32
#   codes * np.float32(0.5): [0, 0, 0, 0]
#   codes * np.float64(0.5): [-50.0, 30.0, 40.0, 60.0]
#   codes >= np.float32(60.5): [False, True, True, True]
#   codes >= 60.5: [False, False, True, True]
#   mean of 2 tokens weighted by mask * idf: nan, by idf * mask: 1.75
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" numpy==2.4.6

cat > "$work/operand.py" <<'PY'
import sys

import mlx.core as mx
import numpy as np

mx.set_default_device(mx.cpu)
codes = mx.array([-100, 60, 80, 120], mx.int8)
scales = np.array([0.005, 0.005, 0.01, 0.01], np.float32)


def listed(values: mx.array | np.ndarray) -> list:
    values = np.array(values)
    return values.astype(float).round(2).tolist() if values.dtype.kind == "f" else values.tolist()


cast, swapped, both = codes * scales, scales * codes, codes * mx.array(scales)
print(f"codes * scales: {listed(cast)} {cast.dtype}")
print(f"scales * codes: {listed(swapped)} {swapped.dtype}")
print(f"codes * mx.array(scales): {listed(both)} {both.dtype}")
single, double = codes * np.float32(0.5), codes * np.float64(0.5)
print(f"codes * np.float32(0.5): {listed(single)}")
print(f"codes * np.float64(0.5): {listed(double)}")
over_cast, over = codes >= np.float32(60.5), codes >= 60.5
print(f"codes >= np.float32(60.5): {listed(over_cast)}")
print(f"codes >= 60.5: {listed(over)}")

tokens, mask, idf = mx.array([1.0, 2.0, 7.0]), mx.array([1, 1, 0]), np.array([0.2, 0.6, 0.9], np.float32)
means = []
for weights in (mask * idf, mx.array(idf * mask)):
    means.append(((tokens * weights).sum() / weights.sum()).item())
print(f"mean of 2 tokens weighted by mask * idf: {means[0]:g}, by idf * mask: {means[1]:g}")

right = [-0.5, 0.3, 0.8, 1.2]
if listed(swapped) != right or listed(both) != right or listed(double) != [-50.0, 30.0, 40.0, 60.0]:
    sys.exit("The other ways of writing it are no longer right.")
if abs(means[1] - 1.75) > 1e-5 or listed(over) != [False, False, True, True]:
    sys.exit("The other ways of writing it are no longer right.")
if cast.any().item() or cast.dtype != mx.int8 or single.any().item():
    sys.exit("NumPy's factor is no longer cast to the type of the codes.")
if listed(over_cast) == listed(over) or not np.isnan(means[0]):
    sys.exit("NumPy's threshold or weights are no longer cast to integers.")
PY
"$work/venv/bin/python" "$work/operand.py"
