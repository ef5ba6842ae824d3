#!/usr/bin/env bash
# Version:   @huggingface/tokenizers 0.2.0 (npm; transformers.js's tokenizers) with node 20, and tokenizers 0.23.3.
# Guess:     the pre-tokenizer Whitespace splits a text at spaces and around punctuation, in JavaScript as in Python, which
#            made the file.
# Behaviour: in JavaScript its letters are those of ASCII. A word is split where others begin and end: "Größe" is "gr",
#            "öß" and "e". Words of other scripts stay in one piece with the punctuation behind them. Split with the
#            pattern \w+|[^\w\s]+, which is what Whitespace stands for, is right.
# Why:       a model gets tokens that it was not trained on, in the languages that it was trained for, while all English
#            texts are the same; transformers.js got this pre-tokenizer for jina-embeddings-v2-base-de and -zh. The README
#            says at length how patterns are made to match Unicode's letters as in Python; this one isn't. Nothing was
#            found about this.
# Seen:
#   "The size of houses"   Whitespace: the same; Split: the same
#   "Die Größe der Häuser" Whitespace: die gr öß e der h ä user, in Python die größe der häuser; Split: the same
#   "Размер, и дома."      Whitespace: размер, и дома., in Python размер , и дома .; Split: the same
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tokenizers==0.23.3
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$work" @huggingface/tokenizers@0.2.0

cat > "$work/make.py" <<'PY'
import json
import sys

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

texts = ["The size of houses", "Die Größe der Häuser", "Размер, и дома."]
splitters = {
    "Whitespace": pre_tokenizers.Whitespace(),
    "Split": pre_tokenizers.Split(Regex(r"\w+|[^\w\s]+"), "removed", invert=True),
}
expected = {}
for name, splitter in splitters.items():
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    expected[name] = [
        [piece for piece, _ in splitter.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))] for text in texts
    ]
    # Every piece that either library may find is a token, so that tokens are the pieces.
    pieces = {piece for pieces in expected[name] for piece in pieces}
    pieces |= set("Die Größe der Häuser".lower()) | {"gr", "öß", "user", "размер,", "дома."}
    tokens = ["[UNK]", *sorted(pieces)]
    tokenizer.model = models.WordPiece({token: at for at, token in enumerate(tokens)}, unk_token="[UNK]")
    tokenizer.save(f"{sys.argv[1]}/{name}.json")
    if [tokenizer.encode(text).tokens for text in texts] != expected[name]:
        sys.exit("Tokens are not the pieces.")
json.dump({"texts": texts, "expected": expected}, open(f"{sys.argv[1]}/expected.json", "w"))
PY
"$work/venv/bin/python" "$work/make.py" "$work"

cat > "$work/split.mjs" <<'JS'
import { readFileSync } from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";

const folder = process.argv[2];
const read = (name) => JSON.parse(readFileSync(`${folder}/${name}.json`));
const { texts, expected } = read("expected");
const [whitespace, split] = ["Whitespace", "Split"].map((name) => {
  const tokenizer = new Tokenizer(read(name), {});
  return texts.map((text, at) => {
    const tokens = tokenizer.encode(text).tokens.join(" ");
    const wanted = expected[name][at].join(" ");
    return tokens === wanted ? "the same" : `${tokens}, in Python ${wanted}`;
  });
});
texts.forEach((text, at) => {
  console.log(`${`"${text}"`.padEnd(22)} Whitespace: ${whitespace[at]}; Split: ${split[at]}`);
});
if (whitespace[0] !== "the same" || split.some((one) => one !== "the same")) throw new Error("Other texts differ, too.");
if (whitespace.slice(1).includes("the same")) throw new Error("Whitespace knows other letters now.");
JS
node "$work/split.mjs" "$work"
