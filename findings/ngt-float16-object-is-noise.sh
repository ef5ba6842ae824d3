#!/usr/bin/env bash
# Version:   ngt 2.8.0.post1 with numpy 2.4.6.
# Guess:     get_object(i) of an index with object_type="Float16" gives row i, rounded to half precision.
# Behaviour: it reads the bytes of the halves as 32-bit floats: each number of the first half of the list is made of two
#            neighbours of the row, and the second half is not the row's at all. The list has the right length. search()
#            of the same index is right, and so is get_object() with object_type="Float".
# Why:       stored vectors are read back to search by an example, to pick diverse hits, to rescore, or to move to
#            another store. All of that goes on with numbers that are mostly near 0, and ends in an order by chance:
#            a row's own object does not find the row.
# Seen:
#   Float:    rows found by their own vector 98%, objects equal to their rows 100%, to pairs of halves 0%
#   Float16:  rows found by their own vector 98%, objects equal to their rows 1%, to pairs of halves 100%
#   ten nearest by the objects: Float 100%, Float16 2% (1 to 3%, since the second half varies)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ngt==2.8.0.post1 numpy==2.4.6

cat > "$work/objects.py" <<'PY'
import sys

import ngtpy
import numpy as np

SIZE = 32
random = np.random.default_rng(0)
rows = random.standard_normal((500, SIZE)).astype(np.float32)
pairs = rows.astype(np.float16).view(np.float32)
queries = random.standard_normal((50, SIZE)).astype(np.float32)


def nearest(stored: np.ndarray) -> list[list[int]]:
    return np.argsort(np.linalg.norm(queries[:, None] - stored[None], axis=2), axis=1)[:, :10].tolist()


found = {}
for kind in ("Float", "Float16"):
    path = f"{sys.argv[1]}/{kind}".encode()
    ngtpy.create(path, dimension=SIZE, distance_type="L2", object_type=kind)
    index = ngtpy.Index(path)
    index.batch_insert(rows)
    own = np.mean([index.search(row, size=1)[0][0] == number for number, row in enumerate(rows)])
    objects = np.array([index.get_object(number) for number in range(len(rows))], np.float32)
    same = (np.abs(objects - rows) < 0.01).mean()
    halves = (objects[:, : SIZE // 2] == pairs).mean()
    print(f"{kind + ':':9} rows found by their own vector {own:.0%}, objects equal to their rows {same:.0%}, to pairs of halves {halves:.0%}")
    if own < 0.95 or (same > 0.99) != (kind == "Float") or (halves > 0.98) != (kind == "Float16"):
        sys.exit(f"An object of {kind} is no longer what it was.")
    # What is not the row's may be no number at all.
    objects = np.clip(np.nan_to_num(objects), -1e6, 1e6)
    both = zip(nearest(objects), nearest(rows))
    found[kind] = np.mean([len({*left} & {*right}) for left, right in both]) / 10
print(f"ten nearest by the objects: Float {found['Float']:.0%}, Float16 {found['Float16']:.0%}")
if found["Float16"] > 0.3:
    sys.exit("Objects in half precision rank like their rows now.")
PY
"$work/venv/bin/python" "$work/objects.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
