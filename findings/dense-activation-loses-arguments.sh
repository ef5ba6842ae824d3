#!/usr/bin/env bash
# Version:   sentence-transformers 6.2.0 with torch 2.13.0.
# Guess:     a model whose Dense module was given an activation, such as torch.nn.LeakyReLU(0.3), gives the same vectors
#            after save and load.
# Behaviour: the folder keeps the name of the activation's class alone. Loading makes one with the class's defaults: a
#            slope of 0.3 is 0.01, Hardtanh(0, 1) cuts at -1 and 1, GELU("tanh") is the exact one. Neither save nor load
#            warns. PReLU, whose slope is a weight, comes back as it was.
# Why:       the weights were trained with the other activation, and the vectors of the folder still look like vectors:
#            a fifth to a half of the neighbours are others. The model in memory, which was evaluated, is right.
# Seen:
#   Tanh()           comes back as Tanh()                              cosine 1.000, neighbours kept 100 %
#   PReLU(init=0.3)  comes back as PReLU(num_parameters=1)             cosine 1.000, neighbours kept 100 %
#   GELU('tanh')     comes back as GELU(approximate='none')            cosine 1.000, neighbours kept 100 %
#   ELU(3.0)         comes back as ELU(alpha=1.0)                      cosine 0.874, neighbours kept 66 %
#   LeakyReLU(0.3)   comes back as LeakyReLU(negative_slope=0.01)      cosine 0.954, neighbours kept 79 %
#   Hardtanh(0, 1)   comes back as Hardtanh(min_val=-1.0, max_val=1.0) cosine 0.687, neighbours kept 52 %
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet sentence-transformers==6.2.0 torch==2.13.0 transformers==5.24.0 numpy==2.4.6

cat > "$work/dense.py" <<'PY'
import sys
import warnings

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn

warnings.simplefilter("error", UserWarning)
words = {f"w{number}": number for number in range(300)}
tokenizer = Tokenizer(WordLevel({**words, "[UNK]": 300}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = Whitespace()
random = np.random.default_rng(0)
texts = [" ".join(f"w{number}" for number in random.integers(0, 300, 8)) for _ in range(300)]


def nearest(vectors: np.ndarray) -> np.ndarray:
    """Returns the ten nearest other rows of each row, by the cosine."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -2)
    return scores.argsort(axis=1)[:, -10:]


cases = {
    "Tanh()": nn.Tanh(),
    "PReLU(init=0.3)": nn.PReLU(init=0.3),
    "GELU('tanh')": nn.GELU("tanh"),
    "ELU(3.0)": nn.ELU(3.0),
    "LeakyReLU(0.3)": nn.LeakyReLU(0.3),
    "Hardtanh(0, 1)": nn.Hardtanh(0, 1),
}
off = {}
for number, (name, activation) in enumerate(cases.items()):
    torch.manual_seed(0)
    embedding = StaticEmbedding(tokenizer, embedding_weights=3 * torch.randn(301, 64))
    model = SentenceTransformer(modules=[embedding, Dense(64, 64, activation_function=activation)], device="cpu")
    model.save(f"{sys.argv[1]}/{number}")
    loaded = SentenceTransformer(f"{sys.argv[1]}/{number}", device="cpu")
    if type(loaded[1].activation_function) is not type(activation):
        sys.exit("The class of the activation is no longer kept.")
    before, after = (each.encode(texts, show_progress_bar=False) for each in (model, loaded))
    off[name] = float(np.abs(before - after).max())
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosine = float(((before * after).sum(1) / lengths).mean())
    kept = np.mean([len({*one} & {*other}) / 10 for one, other in zip(nearest(before), nearest(after), strict=True)])
    back = repr(loaded[1].activation_function)
    print(f"{name:16} comes back as {back:35} cosine {cosine:.3f}, neighbours kept {100 * kept:.0f} %")
    if name in ("ELU(3.0)", "LeakyReLU(0.3)", "Hardtanh(0, 1)") and (cosine > 0.99 or kept > 0.9):
        sys.exit("The activation's arguments are no longer lost.")
if off["Tanh()"] > 1e-6 or off["PReLU(init=0.3)"] > 1e-6:
    sys.exit("An activation without arguments, or with a weight, no longer comes back as it was.")
if off["GELU('tanh')"] < 1e-5:
    sys.exit("GELU's argument is no longer lost.")
PY
"$work/venv/bin/python" "$work/dense.py" "$work" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
