#!/usr/bin/env bash
# Version:   torch 2.13.0, its TorchScript exporter (dynamo=False), with transformers 5.24.0, onnx 1.23.2 and
#            onnxruntime 1.32.0.
# Guess:     torch.onnx.export leaves the model as it was: an encoder in eval mode, as from_pretrained gives it, is in
#            eval mode afterwards.
# Behaviour: to write an encoder with its pooling into one file, both go into a module of one's own, and a new module
#            says training=True of itself. The exporter keeps that one flag, exports in eval mode, and sets the flag
#            back for every layer: the encoder behind the module is then in training mode, with dropout. The newer
#            exporter (dynamo=True) leaves it alone, and so does the old one behind wrapper.eval().
# Why:       the file is right. The first thing that one does with it is to compare it with the model in memory, and that
#            model now gives other vectors at each call, so that the file looks wrong; what is embedded next in the
#            process is noisy. Nothing warns of it.
# Seen:
#   encoder behind a pooling module, dynamo=True: training before False, after False
#     file: off by less than 1e-5; model in memory afterwards: off by less than 1e-5, two calls the same
#   encoder behind a pooling module, dynamo=False: training before False, after True
#     file: off by less than 1e-5; model in memory afterwards: cosine 0.903 with before, two calls 0.825 with each other
#   the same after wrapper.eval(), dynamo=False: training before False, after False
#     file: off by less than 1e-5; model in memory afterwards: off by less than 1e-5, two calls the same
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 onnx==1.23.2 onnxscript==0.7.2 \
  onnxruntime==1.32.0 numpy==2.4.6

cat > "$work/mode.py" <<'PY'
import logging
import sys
import warnings

import numpy as np
import onnxruntime
import torch
from transformers import BertConfig, BertModel

logging.disable()
warnings.simplefilter("ignore")
torch.set_num_threads(1)


class Pooled(torch.nn.Module):
    """An encoder and the mean of its tokens, as one module to export."""

    def __init__(self, encoder: BertModel) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(tokens.dtype)
        return (tokens * weights).sum(1) / weights.sum(1)


torch.manual_seed(0)
config = BertConfig(
    vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
    initializer_range=0.2,
)
BertModel(config).save_pretrained(sys.argv[1])
ids, mask = torch.randint(5, 100, (8, 12)), torch.ones(8, 12, dtype=torch.int64)
mask[1, 6:] = 0


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(1) / lengths).mean())


def case(name: str, dynamo: bool, evaluate: bool) -> tuple[bool, bool]:
    """Prints what an export does to the encoder; returns whether it is in training mode and whether it is noisy."""
    encoder = BertModel.from_pretrained(sys.argv[1])
    model = Pooled(encoder)
    if evaluate:
        model.eval()
    before_mode, path = encoder.training, f"{sys.argv[1]}/model.onnx"
    with torch.no_grad():
        before = model(ids, mask).numpy()
        names = ["input_ids", "attention_mask"]
        torch.onnx.export(model, (ids, mask), path, input_names=names, dynamo=dynamo, verbose=False)
        once, twice = (model(ids, mask).numpy() for _ in range(2))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (file,) = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    print(f"{name}, dynamo={dynamo}: training before {before_mode}, after {encoder.training}")
    if before_mode or np.abs(file - before).max() > 1e-5:
        sys.exit("The encoder was not in eval mode, or the file is not right.")
    noisy = bool(np.abs(once - before).max() > 1e-5)
    result = "off by less than 1e-5, two calls the same"
    if noisy:
        result = f"cosine {cosine(before, once):.3f} with before, two calls {cosine(once, twice):.3f} with each other"
    print(f"  file: off by less than 1e-5; model in memory afterwards: {result}")
    return encoder.training, noisy


if case("encoder behind a pooling module", True, False) != (False, False):
    sys.exit("The newer exporter no longer leaves the model alone.")
if case("encoder behind a pooling module", False, False) != (True, True):
    sys.exit("The old exporter no longer leaves the encoder in training mode.")
if case("the same after wrapper.eval()", False, True) != (False, False):
    sys.exit("The old exporter changes the mode of a module in eval mode as well.")
PY
"$work/venv/bin/python" "$work/mode.py" "$work/model" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
