#!/usr/bin/env bash
# Version:   surrealdb 2.0.0 (Python, embedded "mem://") with numpy 2.4.6.
# Guess:     a vector index of TYPE I16 holds int8 codes exactly, and its cosine is that of I32, I64 and F32.
# Behaviour: with DIST COSINE the inner product is summed in 16 bits as well and wraps round at 32768, which three codes of
#            127 exceed; the lengths it is divided by are right. A text does not find itself, the ten nearest are found by
#            chance, and vector::distance::knn() is the cosine of the wrapped product. The same vectors with codes from
#            -10 to 10 are right, and so are DIST EUCLIDEAN and MANHATTAN over I16.
# Why:       I16 is the smallest type that there is, the one for int8 embeddings (each number from -127 to 127).
# Seen:
#   COSINE TYPE F32, codes to 127:     10.0 of the ten nearest, 20 of 20 rows find themselves
#   COSINE TYPE I32, codes to 127:     10.0 of the ten nearest, 20 of 20 rows find themselves
#   COSINE TYPE I16, codes to 10:      10.0 of the ten nearest, 20 of 20 rows find themselves
#   EUCLIDEAN TYPE I16, codes to 127:   9.9 of the ten nearest, 20 of 20 rows find themselves
#   COSINE TYPE I16, codes to 127:      0.2 of the ten nearest,  1 of 20 rows find themselves
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet surrealdb==2.0.0 numpy==2.4.6

cat > "$work/codes.py" <<'PY'
import sys

import numpy as np
from surrealdb import Surreal

random = np.random.default_rng(0)
vectors = random.standard_normal((500, 128))
scaled = vectors / np.abs(vectors).max(axis=1, keepdims=True)
database = Surreal("mem://")
database.use("findings", "findings")


def measure(metric: str, kind: str, top: int = 127) -> tuple[float, int, float]:
    """How many of the ten nearest of 20 rows the index finds, how many find themselves, how far off distances are."""
    codes = np.round(scaled * top).astype(int)
    if metric == "COSINE":
        lengths = np.linalg.norm(codes, axis=1)
        products = codes[:20] @ codes.T
        away = 1 - products / lengths / lengths[:20, None]
        wrapped = 1 - products.astype(np.int16) / lengths / lengths[:20, None]
    else:
        away = wrapped = np.linalg.norm(codes[:20, None] - codes[None], axis=2)
    table = f"{metric}{kind}{top}".lower()
    database.query(f"DEFINE INDEX nearest ON {table} FIELDS vector HNSW DIMENSION 128 DIST {metric} TYPE {kind}")
    database.query(f"INSERT INTO {table} $rows", {"rows": [{"id": i, "vector": v} for i, v in enumerate(codes.tolist())]})
    text = f"SELECT VALUE [record::id(id), vector::distance::knn()] FROM {table} WHERE vector <|10, 500|> $query"
    found = own = off = 0
    for row in range(20):
        hits = database.query(text, {"query": codes[row].tolist()})
        best = {*np.argsort(away[row], kind="stable")[:10].tolist()}
        found += len(best & {name for name, _ in hits}) / 20
        own += row in (name for name, _ in hits)
        off = max(off, *(abs(wrapped[row, name] - distance) for name, distance in hits))
    print(f"{f'{metric} TYPE {kind}, codes to {top}:':34} {found:4.1f} of the ten nearest, {own:2} of 20 rows find themselves")
    return found, own, off


right = [measure("COSINE", "F32"), measure("COSINE", "I32"), measure("COSINE", "I16", 10), measure("EUCLIDEAN", "I16")]
short = measure("COSINE", "I16")
if short[0] > 5:
    sys.exit("The cosine over I16 finds the nearest now.")
if min(found for found, _, _ in right) < 9 or short[2] > 0.001:
    sys.exit("The other types or small codes are no longer right, or the distances are not those of a wrapped product.")
PY
"$work/venv/bin/python" "$work/codes.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
