#!/usr/bin/env bash
# Version:   numkong 7.8.6 with numpy 2.4.6 (beside simsimd 6.5.16, by the same author).
# Guess:     hamming() of two uint8 rows that numpy.packbits made, or with dtype="u1", which its help lists for bits, is
#            the number of bits that differ; or it is refused, as simsimd does, and numkong's own jaccard().
# Behaviour: it is the number of bytes that differ, also by cdist(metric="hamming") and also with dtype="u1", which
#            numkong takes for NumPy's unsigned integer of one byte. dtype="uint1" counts bits; jaccard() and
#            hammings_symmetric() have no kernel for plain uint8 and say so.
# Why:       of two codes of 256 bits that have little in common nearly all 32 bytes differ: most distances are 31 or
#            32, and the nearest are drawn from hundreds of equals. The number is an integer in a range that looks right.
# Seen:
#   two codes of 256 bits: 101 bits and 31 bytes differ; hamming() 31, with "u1" 31, with "uint1" 101
#   simsimd: LookupError as it is, 101 with "bin8"
#   ten nearest by bits that cdist finds: 16%, with "uint1" 100%; distinct distances 5 and 79
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numkong==7.8.6 simsimd==6.5.16 numpy==2.4.6

cat > "$work/bits.py" <<'PY'
import sys

import numkong
import numpy as np
import simsimd

random = np.random.default_rng(0)
topics = random.standard_normal((40, 256))
vectors = np.repeat(topics, 50, axis=0) + 2 * random.standard_normal((2000, 256))
codes = np.packbits(vectors > 0, axis=1)
one, other = codes[0], codes[1]
bits, size = int(np.unpackbits(one ^ other).sum()), int((one != other).sum())
plain, letters, named = numkong.hamming(one, other), numkong.hamming(one, other, "u1"), numkong.hamming(one, other, "uint1")
print(f'two codes of 256 bits: {bits} bits and {size} bytes differ; hamming() {plain}, with "u1" {letters}, with "uint1" {named}')
try:
    said = f"{simsimd.hamming(one, other):.0f}"
except LookupError:
    said = "LookupError"
print(f'simsimd: {said} as it is, {simsimd.hamming(one, other, "bin8"):.0f} with "bin8"')

queries = codes[::40].copy()
true = np.unpackbits(queries[:, None] ^ codes[None], axis=2).sum(axis=2)
found = {}
for name, options in {"plain": {}, "uint1": {"dtype": "uint1"}}.items():
    away = np.array(numkong.cdist(queries, codes, metric="hamming", **options))
    hits = np.argsort(away, axis=1, kind="stable")[:, :10]
    best = np.sort(true, axis=1)[:, 9]
    # A hit counts if it is as near as the tenth.
    found[name] = (np.take_along_axis(true, hits, axis=1) <= best[:, None]).mean(), len(np.unique(away))
print(
    f'ten nearest by bits that cdist finds: {found["plain"][0]:.0%}, with "uint1" {found["uint1"][0]:.0%}; '
    f"distinct distances {found['plain'][1]} and {found['uint1'][1]}"
)
if (plain, letters, named) != (size, size, bits):
    sys.exit("hamming() no longer counts bytes, or uint1 no longer bits.")
if said != "LookupError" or found["plain"][0] > 0.6 or found["uint1"][0] < 0.99:
    sys.exit("simsimd takes uint8 now, or cdist counts bits.")
PY
"$work/venv/bin/python" "$work/bits.py"
