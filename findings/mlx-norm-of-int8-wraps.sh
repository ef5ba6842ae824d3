#!/usr/bin/env bash
# Version:   mlx 0.32.4 (CPU) with numpy 2.4.6.
# Guess:     mx.linalg.norm of int8 codes, which gives floats, gives their lengths, as NumPy's does; MLX's mean and var, which
#            turn whole numbers into floats first, are right, and a sum of int8 is widened.
# Behaviour: the squares are computed in the type of the codes and wrap around; only their sum is widened. A length of
#            hundreds comes back as some tens, or as nan. So it is for int8, uint8 and int16; int32 and floats are right.
# Why:       vectors are stored as int8 and compared by the cosine: codes divided by these lengths find one of the ten
#            nearest rows. NumPy had this until 1.11 (its issue 6128), PyTorch refuses whole numbers; nothing was found
#            about MLX.
# Seen:
#   int8:  0 of 1050 lengths as by NumPy, 51 nan, 1.3 of the ten nearest by the cosine
#   uint8: 0 of 1050 lengths as by NumPy, 0 nan, 0.9 of the ten nearest by the cosine
#   int16: 32 of 1050 lengths as by NumPy, 0 nan, 2.7 of the ten nearest by the cosine
#   int32: 1050 of 1050 lengths as by NumPy, 0 nan, 10.0 of the ten nearest by the cosine
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" numpy==2.4.6

cat > "$work/norm.py" <<'PY'
import sys

import mlx.core as mx
import numpy as np

mx.set_default_device(mx.cpu)
random = np.random.default_rng(0)
topics = random.standard_normal((16, 128))
lengths = random.uniform(0.3, 1, (1050, 1))
vectors = (random.standard_normal((1050, 16)) @ topics).astype(np.float32)
vectors *= lengths / np.abs(vectors).max()
codes = np.round(vectors * 127).astype(np.int8)
kinds = {"int8": codes, "uint8": (codes.astype(int) + 128).astype(np.uint8), "int16": codes.astype(np.int16) * 10}
kinds["int32"] = codes.astype(np.int32)


def nearest(rows: np.ndarray, norms: np.ndarray) -> list[list[int]]:
    """Returns the ten rows behind the first 50 that are nearest to each of these by the cosine."""
    unit = np.nan_to_num(rows.astype(np.float64) / norms[:, None])
    return (unit[:50] @ unit[50:].T).argsort(axis=1, kind="stable")[:, -10:].tolist()


for name, rows in kinds.items():
    right = np.linalg.norm(rows.astype(np.float64), axis=1)
    got = np.array(mx.linalg.norm(mx.array(rows), axis=1))
    same = int(np.isclose(got, right, rtol=1e-4).sum())
    lost = int(np.isnan(got).sum())
    by_hand = np.array(mx.sqrt(mx.square(mx.array(rows).astype(mx.float32)).sum(axis=1)))
    if not np.allclose(by_hand, right, rtol=1e-4) or not np.allclose(np.linalg.norm(rows, axis=1), right, rtol=1e-4):
        sys.exit("The lengths themselves, or NumPy's, are wrong.")
    found = [{*one} & {*other} for one, other in zip(nearest(rows, got), nearest(rows, right), strict=True)]
    share = np.mean([len(both) for both in found])
    print(f"{name + ':':6} {same} of 1050 lengths as by NumPy, {lost} nan, {share:.1f} of the ten nearest by the cosine")
    if (same > 1000) != (name == "int32"):
        sys.exit(f"The lengths of {name} behave otherwise now.")
PY
"$work/venv/bin/python" "$work/norm.py"
