#!/usr/bin/env bash
# Version:   @orama/orama 3.1.18 (npm), with node 20.
# Guess:     mode "hybrid" with hybridWeights {text: 1, vector: 0} gives the order of the full text, {text: 0, vector: 1}
#            that of the vectors.
# Behaviour: where either weight is 0, both are left aside, and each side counts one half, as if no weights were given.
#            0.001 is taken as it is.
# Cause:     the weights are used if both are true, and 0 is false.
# Why:       weights from 0 to 1 are how one finds out what each side is worth. The two ends of that scale, by which all
#            between is judged, measure its middle; a side that was switched off still decides.
# Run:       as it is; node 20 and npm are needed.
# Seen:
#   text 1, vector 0.000: of its ten 1 are the full text's, 9 the vectors'
#   text 0.999, vector 0.001: of its ten 10 are the full text's, 0 the vectors'
#   text 0.5, vector 0.500: of its ten 1 are the full text's, 9 the vectors'
#   text 0.001, vector 0.999: of its ten 0 are the full text's, 10 the vectors'
#   text 0, vector 1.000: of its ten 1 are the full text's, 9 the vectors'
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

npm install --silent --no-audit --no-fund --prefix "$work" @orama/orama@3.1.18

cat > "$work/weights.mjs" <<'JS'
import { create, insert, search } from "@orama/orama";

const SIZE = 8;
const WORDS = ["wing", "flow", "heat", "plate", "steel", "air"];
let state = 1;
// Numbers from 0 to 1 that are the same each time.
const random = () => (state = (state * 16807) % 2147483647) / 2147483647;

const database = create({ schema: { text: "string", vector: `vector[${SIZE}]` } });
for (let row = 0; row < 300; row++) {
  const text = Array.from({ length: 20 + Math.floor(random() * 60) }, () => WORDS[Math.floor(random() ** 2 * WORDS.length)]).join(" ");
  await insert(database, { id: String(row), text, vector: Array.from({ length: SIZE }, () => random() - 0.5) });
}
const vector = { value: Array.from({ length: SIZE }, () => random() - 0.5), property: "vector" };
const asked = { term: "steel", vector, similarity: 0, limit: 10 };
const found = async (settings) => (await search(database, { ...asked, ...settings })).hits.map((hit) => hit.id);
const shared = (left, right) => left.filter((id) => right.includes(id)).length;

const text = await found({ mode: "fulltext" });
const near = await found({ mode: "vector" });
const shares = {};
for (const weight of [1, 0.999, 0.5, 0.001, 0]) {
  const hybrid = await found({ mode: "hybrid", hybridWeights: { text: weight, vector: 1 - weight } });
  shares[weight] = [shared(hybrid, text), shared(hybrid, near), hybrid.join()];
  console.log(`text ${weight}, vector ${(1 - weight).toFixed(3)}: of its ten ${shares[weight][0]} are the full text's, ` +
    `${shares[weight][1]} the vectors'`);
}
if (shares[0.999][0] !== 10 || shares[0.001][1] !== 10) throw new Error("Small weights no longer count as they are.");
if (shares[1][2] !== shares[0.5][2] || shares[0][2] !== shares[0.5][2]) throw new Error("A weight of 0 counts now.");
JS
node "$work/weights.mjs"
