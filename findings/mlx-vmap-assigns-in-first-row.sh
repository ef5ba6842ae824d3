#!/usr/bin/env bash
# Version:   mlx 0.32.4 (CPU) with numpy 2.4.6.
# Guess:     vmap runs a function over all rows at once and gives what it gives row by row.
# Behaviour: where the function writes a value that is the same for all rows into a row, by row[0] = value, by a slice, by
#            at[0].add or by slice_update, the value is written into the first row alone; the others come back as if nothing
#            had been assigned. With a value that comes from the row, with an array of indices, and by where, it is right.
# Why:       taking [CLS] out of each text's scores before a softmax is such an assignment, and a test with one row passes.
#            Other mistakes of vmap are known (issues 4321, of scatters along a later axis, and 4444, of strided slices);
#            nothing was found about this.
# Seen:
#   row[0] = -9.0:                    1 of 4 rows as one by one, 3 as if nothing was assigned
#   row[0] = an array from outside:   1 of 4 rows as one by one, 3 as if nothing was assigned
#   row[1:3] = -9.0:                  1 of 4 rows as one by one, 3 as if nothing was assigned
#   slice_update(row, ...):           1 of 4 rows as one by one, 3 as if nothing was assigned
#   row.at[0].add(-9.0):              1 of 4 rows as one by one, 3 as if nothing was assigned
#   row[0] = row[1]:                  4 of 4 rows as one by one, 0 as if nothing was assigned
#   row[[0]] = -9.0:                  4 of 4 rows as one by one, 0 as if nothing was assigned
#   where(number == 0, -9.0, row):    4 of 4 rows as one by one, 0 as if nothing was assigned
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" numpy==2.4.6

cat > "$work/rows.py" <<'PY'
import sys

import mlx.core as mx
import numpy as np

mx.set_default_device(mx.cpu)
rows = mx.array(np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32))
low = mx.array(-9.0)


def assign(row: mx.array, places: object, value: object) -> mx.array:
    """Returns the row with other values at the places; the row itself stays as it is."""
    row = row + 0
    row[places] = value
    return row


cases = {
    "row[0] = -9.0": lambda row: assign(row, 0, -9.0),
    "row[0] = an array from outside": lambda row: assign(row, 0, low),
    "row[1:3] = -9.0": lambda row: assign(row, slice(1, 3), -9.0),
    "slice_update(row, ...)": lambda row: mx.slice_update(row, mx.full((2,), -9.0), mx.array([1]), axes=(0,)),
    "row.at[0].add(-9.0)": lambda row: row.at[0].add(-9.0),
    "row[0] = row[1]": lambda row: assign(row, 0, row[1]),
    "row[[0]] = -9.0": lambda row: assign(row, mx.array([0]), -9.0),
    "where(number == 0, -9.0, row)": lambda row: mx.where(mx.arange(6) == 0, low, row),
}
wrong = set(list(cases)[:5])
for name, function in cases.items():
    each = np.stack([np.array(function(row)) for row in rows])
    got = np.array(mx.vmap(function)(rows))
    right = [bool((one == other).all()) for one, other in zip(got, each, strict=True)]
    untouched = [bool((one == row).all()) for one, row in zip(got, np.array(rows), strict=True)]
    print(f"{name + ':':33} {sum(right)} of 4 rows as one by one, {sum(untouched)} as if nothing was assigned")
    if (right != [True] * 4) != (name in wrong) or name in wrong and right != [True, False, False, False]:
        sys.exit(f"{name} behaves otherwise now.")
PY
"$work/venv/bin/python" "$work/rows.py"
