#!/usr/bin/env bash
# Version:   chromadb-client 1.5.9 with snowballstemmer 3.1.1 and 2.2.0, mmh3 5.3.1 and numpy 2.4.6;
#            @chroma-core/chroma-bm25 0.1.10 with snowball-stemmers 0.6.0 and chromadb 3.5.0 (npm), with node 20.
# Guess:     "chroma_bm25", under which name a collection keeps its sparse embedding function for all clients, gives a
#            word one index in Python and in JavaScript.
# Behaviour: it does for most English words. Python's stemmer, which Chroma asks for without a version, changed with
#            Snowball 3: "university", "international", "organization", "internal", "interval", "universal" and "added"
#            have other stems, and so other indices, than in JavaScript and than in Python with snowballstemmer 2. Of
#            each letter beyond ASCII JavaScript's hash keeps the low byte, where Python's takes the bytes of UTF-8: no
#            such word has the same index.
# Why:       a document that a Python job stores and a query that a web server embeds share no index: the inner product
#            is 0, as if the word weren't in it, while other words work. An update of snowballstemmer does the same to a
#            collection that stays in Python. Both clients are meant to give the same. Nothing was found about this.
# Seen:
#   same index in Python and JavaScript: "retrieval" "embeddings" "government"
#   another one in JavaScript: "university" "international" "organization" "internal" "added" "größe" "информация"
#   another one with snowballstemmer 2: "university" "international" "organization" "internal" "added"
#   "University added an international organization" stored by Python, "international university organization" asked
#   by: Python 8.43, JavaScript 0.00, Python with snowballstemmer 2 0.00
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet chromadb-client==1.5.9 snowballstemmer==3.1.1 mmh3==5.3.1 numpy==2.4.6
"$work/venv/bin/pip" install --quiet --no-deps --target "$work/older" snowballstemmer==2.2.0
npm install --silent --no-audit --no-fund --ignore-scripts --omit=optional --prefix "$work" \
  @chroma-core/chroma-bm25@0.1.10 snowball-stemmers@0.6.0 chromadb@3.5.0

cat > "$work/texts.json" <<'JSON'
["retrieval", "embeddings", "government", "university", "international", "organization", "internal", "added", "größe",
 "информация", "University added an international organization", "international university organization"]
JSON
cat > "$work/embed.py" <<'PY'
import json
import sys

from chromadb.utils.embedding_functions import ChromaBm25EmbeddingFunction

texts = json.load(open(sys.argv[1]))
json.dump([dict(zip(map(int, one.indices), one.values)) for one in ChromaBm25EmbeddingFunction()(texts)], sys.stdout)
PY
cat > "$work/embed.mjs" <<'JS'
import { readFileSync } from "node:fs";
import { ChromaBm25EmbeddingFunction } from "@chroma-core/chroma-bm25";

const texts = JSON.parse(readFileSync(process.argv[2]));
const vectors = await new ChromaBm25EmbeddingFunction().generate(texts);
console.log(JSON.stringify(vectors.map((one) => Object.fromEntries(one.indices.map((at, n) => [at, one.values[n]])))));
JS
"$work/venv/bin/python" "$work/embed.py" "$work/texts.json" > "$work/python.json"
PYTHONPATH=$work/older "$work/venv/bin/python" "$work/embed.py" "$work/texts.json" > "$work/older.json"
node "$work/embed.mjs" "$work/texts.json" > "$work/javascript.json"

cat > "$work/compare.py" <<'PY'
import json
import sys

names = ("texts", "python", "javascript", "older")
texts, python, javascript, older = (json.load(open(f"{sys.argv[1]}/{name}.json")) for name in names)
words = range(10)


def quoted(numbers: list[int]) -> str:
    return " ".join(f'"{texts[number]}"' for number in numbers)


def product(left: dict[str, float], right: dict[str, float]) -> float:
    return sum(value * right.get(index, 0) for index, value in left.items())


same = [number for number in words if python[number] == javascript[number]]
other = [number for number in words if python[number].keys() != javascript[number].keys()]
changed = [number for number in words if python[number].keys() != older[number].keys()]
print(f"same index in Python and JavaScript: {quoted(same)}")
print(f"another one in JavaScript: {quoted(other)}")
print(f"another one with snowballstemmer 2: {quoted(changed)}")
found = [product(python[10], vectors[11]) for vectors in (python, javascript, older)]
print(f'"{texts[10]}" stored by Python, "{texts[11]}" asked')
print(f"by: Python {found[0]:.2f}, JavaScript {found[1]:.2f}, Python with snowballstemmer 2 {found[2]:.2f}")
if same != [0, 1, 2]:
    sys.exit("The words that are alike are others.")
if other != [*range(3, 10)] or changed != [*range(3, 8)] or found[0] == 0 or any(found[1:]):
    sys.exit("The indices are alike now.")
PY
"$work/venv/bin/python" "$work/compare.py" "$work"
