#!/usr/bin/env bash
# Version:   client-vector-search 0.2.0 (npm), with node 20.
# Guess:     update() replaces an object of the index: as many objects as before, and the new vector in its place.
# Behaviour: update() puts the new object in the old one's place and adds it at the end as well. Each update leaves one
#            more copy, the copies fill the first places of a search, and remove() takes one of them, so that an object
#            that was updated and removed is still found. A later update() of it changes the first copy alone: the object
#            is found by its old vector, too.
# Why:       an index whose texts change is updated again and again; size(), the only sign, is looked at by few. The
#            README describes update() as updating an object by its id. Nothing was found about this.
# Seen:
#   at first:                    3 objects, nearest to "blue": 2 3 1
#   1 is updated to "blue":      4 objects, nearest to "blue": 1 1 2
#   1 is updated back to "red":  5 objects, nearest to "blue": 1 2 3
#   1 is removed:                4 objects, nearest to "blue": 1 2 3
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --omit=optional --prefix "$work" client-vector-search@0.2.0

cat > "$work/update.mjs" <<'JS'
import vectors from "client-vector-search";

const red = [1, 0, 0];
const blue = [0, 0, 1];
const index = new vectors.EmbeddingIndex([
  { id: 1, embedding: red },
  { id: 2, embedding: [0, 0.6, 0.8] },
  { id: 3, embedding: [0, 0.8, 0.6] },
]);

async function show(label) {
  const hits = await index.search(blue, { topK: 3 });
  const ids = hits.map((hit) => hit.object.id).join(" ");
  console.log(`${`${label}:`.padEnd(28)} ${index.size()} objects, nearest to "blue": ${ids}`);
  return `${index.size()}: ${ids}`;
}

const seen = [await show("at first")];
index.update({ id: 1 }, { id: 1, embedding: blue });
seen.push(await show('1 is updated to "blue"'));
index.update({ id: 1 }, { id: 1, embedding: red });
seen.push(await show('1 is updated back to "red"'));
index.remove({ id: 1 });
seen.push(await show("1 is removed"));
if (seen[0] !== "3: 2 3 1") throw new Error("The search finds others from the beginning.");
if (seen.slice(1).join(", ") !== "4: 1 1 2, 5: 1 2 3, 4: 1 2 3") throw new Error("update() replaces an object now.");
JS
node "$work/update.mjs"
