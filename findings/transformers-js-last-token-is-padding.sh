#!/usr/bin/env bash
# Version:   @huggingface/transformers 4.3.2 (npm), with node 20; the tiny model is made with onnx 1.23.2, numpy 2.4.6
#            and tokenizers 0.23.3.
# Guess:     pooling "last_token" ("eos") takes the last token of each text, as "mean" takes the mean of each text's own
#            tokens and leaves the padding out.
# Behaviour: transformers.js takes the last column of the batch. Where the tokenizer pads on the right, which it does
#            unless its file says padding_side "left", each text but the longest gets the state at a padding token.
#            Alone, each text is right. No warning.
# Why:       decoders that embed texts pool so, and sentence-transformers finds the last token by the attention mask,
#            whatever the side. Queries come one at a time and are right; documents come in batches, and most are wrong,
#            depending on what stood beside them.
# Run:       as it is; node 20, npm and python3 are needed.
# Seen (texts of one, two, three and five tokens: the cosine of each one's vector alone and in the batch of all four):
#   right, mean:        1.00 1.00 1.00 1.00
#   left, last_token:   1.00 1.00 1.00 1.00
#   right, last_token:  0.68 0.76 0.86 1.00
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

words = ["<pad>", "<unk>", *"abcdefgh"]
tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
tokenizer.pre_tokenizer = WhitespaceSplit()

# A token's state is its embedding and the sum of the embeddings up to it, but for those that the mask leaves out.
table = np.random.default_rng(0).standard_normal((len(words), 16)).astype(np.float32)
nodes = [
    helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
    helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
    helper.make_node("Unsqueeze", ["mask", "width"], ["columns"]),
    helper.make_node("Mul", ["tokens", "columns"], ["kept"]),
    helper.make_node("CumSum", ["kept", "length"], ["sums"]),
    helper.make_node("Add", ["tokens", "sums"], ["last_hidden_state"]),
]
names = ("input_ids", "attention_mask")
ids = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in names]
states = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "length", 16])
numbers = {"table": table, "length": np.array(1), "width": np.array([2])}
weights = [numpy_helper.from_array(number, name) for name, number in numbers.items()]
graph = helper.make_graph(nodes, "sums", ids, [states], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
for side in ("right", "left"):
    folder = Path(sys.argv[1], side)
    (folder / "onnx").mkdir(parents=True)
    onnx.save(model, folder / "onnx" / "model.onnx")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>"}
    sided = {"padding_side": side} if side == "left" else {}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 32, **sided}))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "vocab_size": len(words), **shape}))
PY
"$work/venv/bin/python" "$work/model.py" "$work/models"

cat > "$work/pool.mjs" <<'JS'
import { cos_sim, env, pipeline } from "@huggingface/transformers";

env.allowRemoteModels = false;
env.localModelPath = process.argv[2];
const texts = ["a", "b c", "d e f", "g h a c e"];

async function measure(side, pooling) {
  const embed = await pipeline("feature-extraction", side, { dtype: "fp32" });
  const batch = (await embed(texts, { pooling })).tolist();
  const cosines = [];
  for (const [row, text] of texts.entries()) {
    const [alone] = (await embed([text], { pooling })).tolist();
    cosines.push(cos_sim(alone, batch[row]));
  }
  const shown = cosines.map((cosine) => cosine.toFixed(2)).join(" ");
  console.log(`${`${side}, ${pooling}:`.padEnd(19)} ${shown}`);
  return cosines;
}

const right = [...(await measure("right", "mean")), ...(await measure("left", "last_token"))];
if (right.some((cosine) => cosine < 0.999)) throw new Error("The mean or padding on the left are no longer right.");
const cosines = await measure("right", "last_token");
if (cosines[3] < 0.999) throw new Error("The longest text is no longer right.");
if (cosines.slice(0, 3).some((cosine) => cosine > 0.9)) throw new Error("The last token of each text is taken now.");
JS
node "$work/pool.mjs" "$work/models"
