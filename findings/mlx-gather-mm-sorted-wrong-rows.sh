#!/usr/bin/env bash
# Version:   mlx 0.32.4 with mlx-cuda-13 and numpy 2.4.6, on an NVIDIA GPU.
# Guess:     sorted_indices=True tells gather_mm that the indices are in order, which is faster; no result changes.
# Behaviour: with rows that got their axis of one by x[:, None] or mx.expand_dims, the first row of each group of equal
#            indices is right and all others are wrong, without an error: off by 4 where the numbers are about 1. With
#            x.reshape(-1, 1, K), an array of the same shape and content, and without sorted_indices all are right.
# Cause:     expand_dims gives the new axis a stride of 1, which is free to choose for an axis of one; the grouped
#            product takes the distance between rows from that axis, so that each row begins one number after the last.
# Why:       rows sorted by their expert and a product with sorted_indices=True are how a mixture of experts is
#            computed. A row alone with its expert is right, and so are all on the CPU; batches on the GPU give vectors
#            of the right shape and size.
# Run:       as it is, on Linux with a driver for CUDA 13; bash, python3 and nvidia-smi are needed. It downloads CUDA's
#            libraries, which are large. Without an NVIDIA GPU nothing is run.
# Seen:      these products, measured by themselves on one NVIDIA H200; this script as a whole was not run there. Each
#            number is the greatest difference from numpy's float32 (0.001 is the GPU's TF32).
#   x[:, None]           unsorted: firsts 0.0000, others 0.0000
#   x[:, None]           sorted:   firsts 0.0007, others 4.3100
#   mx.expand_dims(x, 1) sorted:   firsts 0.0007, others 4.3100
#   x[order][:, None]    sorted:   firsts 0.0007, others 4.3100
#   x.reshape(-1, 1, K)  unsorted: firsts 0.0000, others 0.0000
#   x.reshape(-1, 1, K)  sorted:   firsts 0.0007, others 0.0011
set -euo pipefail
gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c "^GPU") || true
if [[ $gpus -lt 1 ]]; then echo "skipped: needs an NVIDIA GPU"; exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cuda13]==0.32.4" numpy==2.4.6

cat > "$work/rows.py" <<'PY'
import sys

import mlx.core as mx
import numpy as np

GROUPS, ROWS, K = 4, 32, 16

mx.set_default_device(mx.gpu)
random = np.random.default_rng(0)
rows = random.standard_normal((ROWS, K)).astype(np.float32)
weights = (random.standard_normal((GROUPS, K, K)) / K**0.5).astype(np.float32)
groups = np.sort(random.integers(0, GROUPS, ROWS)).astype(np.uint32)
right = np.stack([row @ weights[group] for row, group in zip(rows, groups)])
first = np.diff(groups, prepend=np.uint32(GROUPS)) != 0

x, w, indices = mx.array(rows), mx.array(weights), mx.array(groups)
ways = {
    "x[:, None]": x[:, None],
    "mx.expand_dims(x, 1)": mx.expand_dims(x, 1),
    "x[order][:, None]": x[mx.arange(ROWS)][:, None],
    "x.reshape(-1, 1, K)": x.reshape(-1, 1, K),
}
for name, given in ways.items():
    for ordered in (False, True):
        product = np.asarray(mx.gather_mm(given, w, rhs_indices=indices, sorted_indices=ordered))[:, 0]
        apart = np.abs(product - right).max(axis=1)
        firsts, others = float(apart[first].max()), float(apart[~first].max())
        print(
            f"{name:20} {'sorted:  ' if ordered else 'unsorted:'} firsts {firsts:.4f}, others {others:.4f}", flush=True
        )
        if firsts > 0.01:
            sys.exit("The first row of a group is wrong as well.")
        wrong = ordered and name != "x.reshape(-1, 1, K)"
        if (others > 0.1) != wrong:
            sys.exit(f"{name} no longer {'gives wrong rows' if wrong else 'is right'}.")
PY
"$work/venv/bin/python" "$work/rows.py"
