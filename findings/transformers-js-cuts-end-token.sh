#!/usr/bin/env bash
# Version:   @huggingface/transformers 4.3.2 (npm), with node 20, beside tokenizers 0.23.3 (Python).
# Guess:     truncation shortens the text and leaves the special tokens where they belong, as the same tokenizer.json
#            does in Python: the text's last tokens make room for [SEP], and of a pair the longer text is shortened.
# Behaviour: transformers.js puts the special tokens in first and then cuts the finished row at max_length. A text that
#            is too long has no [SEP] at its end. Of a pair the row's end is cut, whichever text that is: with a query that
#            fills the row, nothing of the document is left. truncation_side "left" is not looked at. No warning.
# Why:       the feature-extraction pipeline always truncates so. A model that pools its last token, as Qwen3-Embedding
#            does, gets each long document's vector from a word in the middle of it instead of from the end token, and
#            the index differs from the one that Python fills, for long texts alone. A reranker reads pairs without an
#            end; a long query gives all documents one score.
# Run:       as it is; node 20, npm and python3 are needed.
# Seen:
#   text:         Python [CLS] a b c d e f [SEP]   transformers.js [CLS] a b c d e f g
#   text, left:   Python [CLS] g h i j k l [SEP]   transformers.js [CLS] a b c d e f g
#   pair:         Python [CLS] a b [SEP] u v w [SEP]   transformers.js [CLS] a b [SEP] u v w x
#   long query:   Python [CLS] a b c [SEP] u v [SEP]   transformers.js [CLS] a b c d e f g
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tokenizers==0.23.3
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$work" @huggingface/transformers@4.3.2

cat > "$work/python.py" <<'PY'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

folder = Path(sys.argv[1])
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]
tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = WhitespaceSplit()
tokenizer.post_processor = TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)
special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
for side in ("right", "left"):
    (folder / side).mkdir()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / side / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8, "truncation_side": side, **special}
    (folder / side / "tokenizer_config.json").write_text(json.dumps(config))

cases = [
    ("text", "right", ["a b c d e f g h i j k l"]),
    ("text, left", "left", ["a b c d e f g h i j k l"]),
    ("pair", "right", ["a b", "u v w x y z"]),
    ("long query", "right", ["a b c d e f g h i j", "u v"]),
]
for number, (name, side, texts) in enumerate(cases):
    tokenizer.enable_truncation(8, direction=side)
    cases[number] = (name, side, texts, tokenizer.encode(*texts).tokens)
(folder / "cases.json").write_text(json.dumps([cases, words]))
PY
"$work/venv/bin/python" "$work/python.py" "$work"

cat > "$work/javascript.mjs" <<'JS'
import { readFileSync } from "node:fs";
import { AutoTokenizer, env } from "@huggingface/transformers";

env.allowRemoteModels = false;
env.localModelPath = process.argv[2];
const [cases, words] = JSON.parse(readFileSync(`${process.argv[2]}/cases.json`, "utf8"));
const cut = {};
for (const [name, side, [text, text_pair = null], wanted] of cases) {
  const tokenizer = await AutoTokenizer.from_pretrained(side);
  const rows = tokenizer([text], { text_pair: text_pair && [text_pair], truncation: true, padding: true, return_tensor: false });
  const got = rows.input_ids[0].map((id) => words[id]);
  console.log(`${`${name}:`.padEnd(13)} Python ${wanted.join(" ")}   transformers.js ${got.join(" ")}`);
  if (wanted.at(-1) !== "[SEP]" || wanted.length !== 8) throw new Error("Python no longer ends each row with [SEP].");
  cut[name] = got;
}
if (Object.values(cut).some((tokens) => tokens.at(-1) === "[SEP]")) throw new Error("The end token is kept now.");
if (cut["text, left"][1] !== "a") throw new Error("truncation_side is looked at now.");
if (cut["long query"].includes("u")) throw new Error("Of a pair the longer text is cut now.");
JS
node "$work/javascript.mjs" "$work"
