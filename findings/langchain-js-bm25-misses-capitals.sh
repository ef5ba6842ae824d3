#!/usr/bin/env bash
# Version:   @langchain/community 1.1.29 with @langchain/core 1.4.0 (npm) and node 20.
# Guess:     the case of letters counts nothing for BM25Retriever, or counts on both sides.
# Behaviour: the query is put into lower case and the documents are not: a word that a document has with a capital, a name or
#            the first of a sentence, is not found by any spelling of the query. With documents in lower case all are found.
#            What has no word of the query comes back as well, with a score of 0 and in the order of the documents, so that
#            the list is as long as ever.
# Why:       names are what keyword search is there for beside a search by vectors, and in German every noun has a capital.
#            The retriever has no option for how it reads documents. Nothing was found about this.
# Seen (each document and its score):
#   "Rome":            Rome is a city. 0.00; a day in rome 0.95; paris by night 0.00
#   "rome":            Rome is a city. 0.00; a day in rome 0.95; paris by night 0.00
#   "ROME":            Rome is a city. 0.00; a day in rome 0.95; paris by night 0.00
#   "Haus", documents as they are: Das Haus ist rot. 0.00; Der Garten 0.00; rot wie Blut 0.00
#   "Haus", in lower case:         das haus ist rot. 0.86; der garten 0.00; rot wie blut 0.00
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --legacy-peer-deps --prefix "$work" \
  @langchain/community@1.1.29 @langchain/core@1.4.0

cat > "$work/capitals.mjs" <<'JS'
import { BM25Retriever } from "@langchain/community/retrievers/bm25";
import { Document } from "@langchain/core/documents";

async function look(label, query, texts) {
  const documents = texts.map((pageContent) => new Document({ pageContent }));
  const retriever = BM25Retriever.fromDocuments(documents, { k: texts.length, includeScore: true });
  const hits = await retriever.invoke(query);
  const scores = new Map(hits.map((hit) => [hit.pageContent, hit.metadata.bm25Score]));
  console.log(`${label} ${texts.map((text) => `${text} ${scores.get(text).toFixed(2)}`).join("; ")}`);
  return texts.map((text) => scores.get(text));
}

const cities = ["Rome is a city.", "a day in rome", "paris by night"];
for (const query of ["Rome", "rome", "ROME"]) {
  const [capital, lower] = await look(`"${query}":`.padEnd(18), query, cities);
  if (!(lower > 0)) throw new Error("Lower case is not found.");
  if (capital !== 0) throw new Error("A capital is found now.");
}
const texts = ["Das Haus ist rot.", "Der Garten", "rot wie Blut"];
const [house] = await look('"Haus", documents as they are:', "Haus", texts);
const [lowered] = await look('"Haus", in lower case:        ', "Haus", texts.map((text) => text.toLowerCase()));
if (!(lowered > 0)) throw new Error("Lower case is not found.");
if (house !== 0) throw new Error("A capital is found now.");
JS
node "$work/capitals.mjs"
