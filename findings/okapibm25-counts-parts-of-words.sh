#!/usr/bin/env bash
# Version:   okapibm25 1.4.1 (npm), with node 20.
# Guess:     a keyword's frequency in a document is the number of words that are the keyword, as in other BM25s; b = 0
#            leaves the lengths of documents out.
# Behaviour: the keyword is looked for anywhere in the text: "art" is found three times in "started apart in a cart". How
#            rare it is comes from the same places, so that a rare word that is a part of common ones counts as common.
#            The lengths of documents count words. A b of 0 is taken for none given, which is 0.75.
# Why:       short words are parts of many longer ones, and a hybrid search takes its lexical half from here. The README
#            calls it a bag-of-words algorithm by keywords, whose b and k1 can be set. Nothing was found about this.
# Seen:
#   "art", by words:   0.00 0.00 0.00 1.32
#   "art", okapibm25:  0.18 0.12 0.12 0.12
#   "art", b = 0:      0.18 0.12 0.12 0.12
#   "sugar" in the two documents that have it: b = 1e-9 0.69 0.69, b = 0 0.53 0.76
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$work" okapibm25@1.4.1

cat > "$work/parts.mjs" <<'JS'
import okapibm25 from "okapibm25";

const documents = [
  "we started apart in a cart",
  "a party for the smartest, by far not the only one, with tea and without sugar",
  "the article is about tea and sugar",
  "a history of modern art in europe",
];

/** BM25 of one word, by the package's own formula, over whole words. */
function byWords(word, k1 = 1.2, b = 0.75) {
  const texts = documents.map((text) => text.match(/\w+/g));
  const mean = texts.reduce((sum, words) => sum + words.length, 0) / texts.length;
  const having = texts.filter((words) => words.includes(word)).length;
  const rarity = Math.log((texts.length - having + 0.5) / (having + 0.5) + 1);
  return texts.map((words) => {
    const count = words.filter((other) => other === word).length;
    return (rarity * count * (k1 + 1)) / (count + k1 * (1 - b + (b * words.length) / mean));
  });
}

const shown = (scores) => scores.map((score) => score.toFixed(2)).join(" ");
const first = (scores) => scores.indexOf(Math.max(...scores));
const words = byWords("art");
const parts = okapibm25.default(documents, ["art"]);
const flat = okapibm25.default(documents, ["art"], { b: 0, k1: 1.2 });
console.log(`"art", by words:   ${shown(words)}`);
console.log(`"art", okapibm25:  ${shown(parts)}`);
console.log(`"art", b = 0:      ${shown(flat)}`);
const sugar = (b) => okapibm25.default(documents, ["sugar"], { b, k1: 1.2 }).slice(1, 3);
console.log(`"sugar" in the two documents that have it: b = 1e-9 ${shown(sugar(1e-9))}, b = 0 ${shown(sugar(0))}`);
if (shown(okapibm25.default(documents, ["sugar"])) !== shown(byWords("sugar"))) throw new Error("The formula is another.");
if (first(words) !== 3 || first(parts) === 3 || parts.includes(0)) throw new Error("Whole words are counted now.");
if (shown(flat) !== shown(parts) || shown(sugar(0)) === shown(sugar(1e-9))) throw new Error("b = 0 counts now.");
JS
node "$work/parts.mjs"
