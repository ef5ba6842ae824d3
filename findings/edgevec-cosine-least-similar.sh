#!/usr/bin/env bash
# Version:   edgevec 0.9.0 (npm), with node 20.
# Guess:     MetricType.Cosine, "cosine similarity (converted to distance)" by its declaration, gives the rows of the
#            highest cosine, first the highest.
# Behaviour: Cosine and Dot are one metric, the plain inner product, and it is taken for a distance: rows of the least
#            products come first, and the row that the query repeats is not among a hundred. The score of a hit is its
#            inner product, which for rows of other lengths than 1 is no cosine. L2 is right.
# Why:       it is the setting that its own examples show. With vectors of length 1 the scores lie between -1 and 1 and
#            rise from hit to hit, as those of a distance should.
# Run:       as it is; node 20 and npm are needed.
# Seen (1000 rows, 20 queries that are rows with a little noise):
#   L2, rows of length 1:      100% of the ten nearest, 0% of the ten farthest, 20 of 20 have their row in a hundred
#   Cosine, rows of length 1:  0% of the ten nearest, 27% of the ten farthest, 0 of 20 have their row in a hundred
#   Dot, rows of length 1:     0% of the ten nearest, 27% of the ten farthest, 0 of 20 have their row in a hundred
#   Cosine, rows of length 3:  the first hit has a cosine of -0.47 and a score of -4.2
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$work" edgevec@0.9.0

cat > "$work/cosine.mjs" <<'JS'
import { readFileSync } from "node:fs";
import load, { EdgeVec, EdgeVecConfig, MetricType } from "edgevec";

await load({ module_or_path: readFileSync(`${process.argv[2]}/node_modules/edgevec/edgevec_bg.wasm`) });
let state = 1;
function uniform() {
  state = (state * 1103515245 + 12345) % 2147483648;
  return state / 2147483648;
}
function vector() {
  return Array.from({ length: 32 }, () => uniform() + uniform() + uniform() + uniform() + uniform() + uniform() - 3);
}
const dot = (one, other) => one.reduce((sum, number, place) => sum + number * other[place], 0);
const scaled = (numbers, length) => numbers.map((number) => (number * length) / Math.sqrt(dot(numbers, numbers)));
const rows = Array.from({ length: 1000 }, () => scaled(vector(), 1));
const queries = rows.slice(0, 20).map((row) => {
  const noise = vector();
  return scaled(row.map((number, place) => number + 0.02 * noise[place]), 1);
});
const orders = queries.map((query) => {
  const pairs = rows.map((row, place) => [dot(query, row), place]).sort((one, other) => other[0] - one[0]);
  return pairs.map(([, place]) => place);
});

function search(metric, length, count) {
  const config = new EdgeVecConfig(32);
  config.setMetricType(MetricType[metric]);
  const index = new EdgeVec(config);
  const ids = rows.map((row) => index.insert(new Float32Array(scaled(row, length))));
  const found = queries.map((query) => index.search(new Float32Array(scaled(query, length)), count));
  return found.map((hits) => hits.map((hit) => ({ row: ids.indexOf(hit.id), score: hit.score })));
}

const shares = {};
for (const metric of ["L2", "Cosine", "Dot"]) {
  const found = search(metric, 1, 100).map((hits) => hits.map((hit) => hit.row));
  const share = (wanted) => {
    const counts = found.map((hits, query) => hits.slice(0, 10).filter((row) => wanted(query).includes(row)).length);
    return counts.reduce((sum, count) => sum + count / 200, 0);
  };
  const nearest = share((query) => orders[query].slice(0, 10));
  const farthest = share((query) => orders[query].slice(-10));
  const own = found.filter((hits, query) => hits.includes(query)).length;
  const percent = (number) => `${Math.round(100 * number)}%`;
  console.log(
    `${`${metric}, rows of length 1:`.padEnd(26)} ${percent(nearest)} of the ten nearest, ` +
      `${percent(farthest)} of the ten farthest, ${own} of 20 have their row in a hundred`,
  );
  shares[metric] = { nearest, own };
}
const [first] = search("Cosine", 3, 10)[0];
const cosine = dot(queries[0], rows[first.row]);
const shown = `a cosine of ${cosine.toFixed(2)} and a score of ${first.score.toFixed(1)}`;
console.log(`Cosine, rows of length 3:  the first hit has ${shown}`);
if (shares.L2.nearest < 0.9 || shares.L2.own < 20) throw new Error("L2 no longer finds the nearest.");
if (shares.Cosine.nearest > 0.05 || shares.Cosine.own > 1) throw new Error("Cosine finds the nearest now.");
if (shares.Dot.nearest > 0.05 || shares.Dot.own > 1) throw new Error("Dot finds the nearest now.");
if (Math.abs(first.score - 9 * cosine) > 0.01) throw new Error("The score of Cosine is no longer the inner product.");
JS
node "$work/cosine.mjs" "$work"
