#!/usr/bin/env bash
# Version:   @huggingface/transformers 4.3.2 (npm), with node 20; the tiny model is made with onnx 1.23.2, numpy 2.4.6
#            and tokenizers 0.23.3.
# Guess:     the pipeline "text-classification" gives the score of a model with one output, as the one of transformers
#            for Python does: the sigmoid of it, or the number itself where config.json says problem_type "regression".
# Behaviour: it takes the softmax over that one number, which is 1, for each text and whatever config.json says but
#            "multi_label_classification". The model itself gives the numbers, by AutoModelForSequenceClassification.
# Why:       models that score a text by one number - its quality, its toxicity, how well a passage fits a query - are
#            classifiers with one label. A threshold lets all texts through, and an order by score is the given one.
# Run:       as it is; node 20, npm and python3 are needed.
# Seen (four texts):
#   logits:                     -1.50 -0.50  0.50  1.50
#   no problem_type:             1.00  1.00  1.00  1.00
#   regression:                  1.00  1.00  1.00  1.00
#   single_label_classification: 1.00  1.00  1.00  1.00
#   multi_label_classification:  0.18  0.38  0.62  0.82
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet onnx==1.23.2 numpy==2.4.6 tokenizers==0.23.3
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$work" @huggingface/transformers@4.3.2

cat > "$work/model.py" <<'PY'
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

words = ["<pad>", "<unk>", *"abcd"]
tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
tokenizer.pre_tokenizer = WhitespaceSplit()

# A text's logit is the number of its first token.
numbers = {"table": np.array([[0], [0], [-1.5], [-0.5], [0.5], [1.5]], dtype=np.float32), "first": np.array(0)}
nodes = [
    helper.make_node("Gather", ["input_ids", "first"], ["tokens"], axis=1),
    helper.make_node("Gather", ["table", "tokens"], ["logits"]),
]
names = ("input_ids", "attention_mask")
ids = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in names]
logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])
weights = [numpy_helper.from_array(number, name) for name, number in numbers.items()]
graph = helper.make_graph(nodes, "score", ids, [logits], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": len(words)}
config |= {"id2label": {"0": "quality"}, "label2id": {"quality": 0}}
for kind in sys.argv[2:]:
    folder = Path(sys.argv[1], kind)
    (folder / "onnx").mkdir(parents=True)
    onnx.save(model, folder / "onnx" / "model.onnx")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 8}))
    said = {} if kind == "none" else {"problem_type": kind}
    (folder / "config.json").write_text(json.dumps({**config, **said}))
PY
kinds=(none regression single_label_classification multi_label_classification)
"$work/venv/bin/python" "$work/model.py" "$work/models" "${kinds[@]}"

cat > "$work/score.mjs" <<'JS'
import { AutoModelForSequenceClassification, AutoTokenizer, env, pipeline } from "@huggingface/transformers";

env.allowRemoteModels = false;
env.localModelPath = process.argv[2];
const texts = ["a", "b", "c", "d"];
const show = (name, numbers) => {
  const shown = numbers.map((number) => number.toFixed(2).padStart(5));
  console.log(`${`${name}:`.padEnd(28)}${shown.join(" ")}`);
};

const tokenizer = await AutoTokenizer.from_pretrained("none");
const model = await AutoModelForSequenceClassification.from_pretrained("none", { dtype: "fp32" });
const { logits } = await model(tokenizer(texts, { padding: true }));
show("logits", [...logits.data]);
const scores = {};
for (const kind of process.argv.slice(3)) {
  const classify = await pipeline("text-classification", kind, { dtype: "fp32" });
  scores[kind] = (await classify(texts)).map(({ score }) => score);
  show(kind === "none" ? "no problem_type" : kind, scores[kind]);
}
const sigmoid = (number) => 1 / (1 + Math.exp(-number));
const { multi_label_classification: sigmoids, ...ones } = scores;
const off = sigmoids.map((score, row) => Math.abs(score - sigmoid(logits.data[row])));
if (off.some((error) => error > 1e-4)) throw new Error("The sigmoid of several labels is gone.");
if (Object.values(ones).flat().some((score) => score !== 1)) throw new Error("One output is a score now.");
JS
node "$work/score.mjs" "$work/models" "${kinds[@]}"
