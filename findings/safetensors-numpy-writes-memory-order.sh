#!/usr/bin/env bash
# Version:   safetensors 0.8.0 (0.7.0 was right), with numpy 2.4.6 and mlx 0.32.4, its CPU wheel for Linux.
# Guess:     save_file of safetensors.numpy and safetensors.mlx writes the array that it is given, as 0.7.0 did, or
#            refuses a view with an error, as safetensors.torch does (all of them ask for contiguous tensors).
# Behaviour: since 0.8.0 it writes what lies in memory from the array's first number on, under the array's shape. A
#            transposed matrix, or one in column order, comes back in another order. Vectors that were cut by [:, :n]
#            come back with the numbers that were cut off: each row but the first is made of other numbers.
# Why:       the file is valid, with the right names, shapes and types. Vectors that are cut to a Matryoshka width and
#            then saved find nothing; weights that are turned for another framework's layout are noise.
# Seen:
#   0.7.0, numpy: whole right, cut right, transposed right, column order right
#   0.7.0, mlx: whole right, cut right, transposed right
#   0.8.0, numpy: whole right, cut WRONG, transposed WRONG, column order WRONG
#   0.8.0, mlx: whole right, cut WRONG, transposed WRONG
#   0.8.0, numpy: vectors saved as [[0, 1], [4, 5], [8, 9]] come back as [[0, 1], [2, 3], [4, 5]]
#   0.8.0, numpy: cut vectors of 100 that are nearest to their saved selves: 1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet safetensors==0.7.0 "mlx[cpu]==0.32.4" numpy==2.4.6

cat > "$work/order.py" <<'PY'
import sys

import mlx.core as mx
import numpy as np
import safetensors
import safetensors.mlx
import safetensors.numpy

mx.set_default_device(mx.cpu)
version, path = safetensors.__version__, sys.argv[1]


def reloaded(array: np.ndarray | mx.array) -> np.ndarray:
    save = (safetensors.numpy if isinstance(array, np.ndarray) else safetensors.mlx).save_file
    save({"vectors": array}, path)
    return safetensors.numpy.load_file(path)["vectors"]


rows = np.arange(12, dtype=np.float32).reshape(3, 4)
of_numpy = {"whole": rows, "cut": rows[:, :2], "transposed": rows.T, "column order": np.asfortranarray(rows)}
of_mlx = {"whole": mx.array(rows), "cut": mx.array(rows)[:, :2], "transposed": mx.array(rows).T}
for library, arrays in (("numpy", of_numpy), ("mlx", of_mlx)):
    right = {name: np.array_equal(np.array(array), reloaded(array)) for name, array in arrays.items()}
    print(f"{version}, {library}: " + ", ".join(f"{name} {'right' if good else 'WRONG'}" for name, good in right.items()))
    if not right.pop("whole"):
        sys.exit("A whole array in row order is no longer written rightly.")
    if set(right.values()) != {version == "0.7.0"}:
        sys.exit("Views are now written in another way.")

if version != "0.7.0":
    saved, came = rows[:, :2].astype(int).tolist(), reloaded(rows[:, :2]).astype(int).tolist()
    print(f"{version}, numpy: vectors saved as {saved} come back as {came}")
    cut = np.random.default_rng(0).standard_normal((100, 768)).astype(np.float32)[:, :256]
    found = int(((cut @ reloaded(cut).T).argmax(axis=1) == np.arange(100)).sum())
    print(f"{version}, numpy: cut vectors of 100 that are nearest to their saved selves: {found}")
    if found > 20:
        sys.exit("Cut vectors are now found again.")
PY
"$work/venv/bin/python" "$work/order.py" "$work/vectors.safetensors"
"$work/venv/bin/pip" install --quiet safetensors==0.8.0
"$work/venv/bin/python" "$work/order.py" "$work/vectors.safetensors"
