#!/usr/bin/env bash
# Version:   ruvector 0.3.2 (npm) with @ruvector/core 0.1.32 and its native ruvector-core-linux-x64-gnu, with node 20.
# Guess:     metric "dot", which the documentation recommends for vectors that are of length 1 already, ranks them as
#            "cosine" does.
# Behaviour: every positive inner product is scored 0, the best score that there is, so that half of all rows are
#            equally near. The ten hits are rows that the graph came upon; a query that all but repeats a row does not
#            find it. "cosine" and "euclidean" are right.
# Why:       vectors of models are of length 1, and the inner product saves the division. Nothing but the scores of 0
#            tells that the hits are drawn by chance.
# Run:       as it is; node 20 and npm are needed, and Linux on x86-64 with glibc.
# Seen (1000 rows of length 1, 20 queries that are rows with a little noise):
#   cosine:     100% of the ten nearest, 20 of 20 find their row, scores 0.003 0.474 0.494
#   euclidean:  100% of the ten nearest, 20 of 20 find their row, scores 0.075 0.973 0.994
#   dot:        3% of the ten nearest, 2 of 20 find their row, scores 0.000 0.000 0.000
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --omit=optional --prefix "$work" \
  ruvector@0.3.2 @ruvector/core@0.1.32 ruvector-core-linux-x64-gnu@0.1.30

cat > "$work/dot.mjs" <<'JS'
import { VectorDB, isNative } from "ruvector";

let state = 1;
function uniform() {
  state = (state * 1103515245 + 12345) % 2147483648;
  return state / 2147483648;
}
function vector() {
  return Array.from({ length: 32 }, () => uniform() + uniform() + uniform() + uniform() + uniform() + uniform() - 3);
}
const dot = (one, other) => one.reduce((sum, number, place) => sum + number * other[place], 0);
const unit = (numbers) => numbers.map((number) => number / Math.sqrt(dot(numbers, numbers)));
const rows = Array.from({ length: 1000 }, () => unit(vector()));
const queries = rows.slice(0, 20).map((row) => {
  const noise = vector();
  return unit(row.map((number, place) => number + 0.02 * noise[place]));
});
const nearest = queries.map((query) => {
  const order = rows.map((row, place) => [dot(query, row), place]).sort((one, other) => other[0] - one[0]);
  return order.slice(0, 10).map(([, place]) => String(place));
});

if (!isNative()) throw new Error("The native library is not used.");
const shares = {};
for (const metric of ["cosine", "euclidean", "dot"]) {
  const database = new VectorDB({ dimensions: 32, metric, path: `${process.argv[2]}/${metric}.db` });
  await database.insertBatch(rows.map((row, place) => ({ id: String(place), vector: new Float32Array(row) })));
  let found = 0;
  let own = 0;
  let scores;
  for (const [place, query] of queries.entries()) {
    const hits = await database.search({ vector: new Float32Array(query), k: 10 });
    found += hits.filter((hit) => nearest[place].includes(hit.id)).length / 200;
    own += hits.some((hit) => hit.id === String(place));
    scores = hits.slice(0, 3).map((hit) => hit.score);
  }
  const share = `${Math.round(100 * found)}% of the ten nearest, ${own} of 20 find their row`;
  console.log(`${`${metric}:`.padEnd(11)} ${share}, scores ${scores.map((score) => score.toFixed(3)).join(" ")}`);
  shares[metric] = { found, own, scores };
}
if (Math.min(shares.cosine.found, shares.euclidean.found) < 0.95) throw new Error("The other metrics are wrong now.");
if (shares.dot.found > 0.2 || shares.dot.own > 5) throw new Error("The inner product finds the nearest now.");
if (shares.dot.scores.some((score) => score !== 0)) throw new Error("Positive inner products are no longer scored 0.");
JS
node "$work/dot.mjs" "$work"
